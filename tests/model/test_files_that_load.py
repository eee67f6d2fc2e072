"""Files that other programs write and onnxruntime takes: sparse, in a cache, with open sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.verification.verify import run
from tests.console import ROOT
from tests.cut_off import dense

DTYPES = [
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16,
    TensorProto.INT8, TensorProto.INT64, TensorProto.INT4,
]  # fmt: skip


def pruned(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers of which most are zero, and one is -0.0."""
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    array[np.abs(array) < 0.8] = 0
    array.flat[np.flatnonzero(array == 0)[0]] = -0.0
    return array


def sparse(name: str, array: np.ndarray, form: str = "linear") -> SparseTensorProto:
    """A sparse tensor of all of ``array`` but its positive zeros."""
    bits = array.reshape(-1).view(np.uint8).reshape(array.size, -1)
    at = np.flatnonzero(bits.any(axis=1))
    indices = at if form == "linear" else np.stack(np.unravel_index(at, array.shape), 1)
    values = numpy_helper.from_array(array.reshape(-1)[at], name)
    return helper.make_sparse_tensor(
        values, numpy_helper.from_array(indices.astype(np.int64)), array.shape
    )


def perceptron(where: str, form: str = "linear", hidden: int = 24) -> onnx.ModelProto:
    """x[n, 8] -> fc1, its weight a sparse initializer or Constant -> Relu -> fc2 -> y[n, 4]."""
    weight = sparse("fc1.weight", pruned(hidden, 8), form)
    nodes = [
        helper.make_node("Gemm", ["x", "fc1.weight"], ["h"], name="fc1", transB=1),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "fc2.weight"], ["y"], name="fc2"),
    ]
    if where == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["fc1.weight"], sparse_value=weight))
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", 1, ["n", 8])],
        [helper.make_tensor_value_info("y", 1, ["n", 4])],
        [numpy_helper.from_array(pruned(hidden, 4, seed=1) + 1, "fc2.weight")],
        sparse_initializer=[weight] if where == "initializer" else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def sparse_of(proto: onnx.ModelProto) -> SparseTensorProto:
    """The one sparse tensor of a model that has no other of that name."""
    found = list(proto.graph.sparse_initializer)
    found += [
        a.sparse_tensor for n in proto.graph.node for a in n.attribute if n.op_type == "Constant"
    ]
    assert "fc1.weight" not in {entry.name for entry in proto.graph.initializer}
    (only,) = found
    return only


@pytest.mark.parametrize("form", ["linear", "coordinates"])
@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_a_sparse_weight_grows_and_stays_sparse(where: str, form: str, tmp_path: Path) -> None:
    proto = perceptron(where, form)
    source = tmp_path / "m.onnx"
    onnx.save(proto, source)
    model = n2n.load(source)
    assert model.weights["fc1.weight"].array().tobytes() == pruned(24, 8).tobytes()
    assert {d.name: d.growth for d in n2n.inspect(model)}["fc1"] == "any"
    assert model.save(tmp_path / "copy.onnx").read_bytes() == source.read_bytes()
    grown = n2n.widen(model, {"fc1": 31})
    for external in (False, True):
        path = grown.save(tmp_path / f"grown{external}.onnx", external=external)
        written = onnx.load(path)
        onnx.checker.check_model(written)
        weight = sparse_of(written)
        assert list(weight.dims) == [31, 8] and (len(weight.indices.dims) == 1) == (
            form == "linear"
        )
        # The old units come first: theirs are the entries that they had.
        assert (
            n2n.load(path).weights["fc1.weight"].array()[:24].tobytes() == pruned(24, 8).tobytes()
        )
        assert n2n.verify(source, path) and n2n.verify(proto, path)
        assert n2n.load(path).sha256() == (n2n.load(path) if external else grown).sha256()


@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_a_sparse_weight_that_nobody_touches_stays_as_it_is(where: str) -> None:
    proto = perceptron(where)
    model = n2n.load(proto)
    wider = n2n.fold(n2n.load(n2n.widen(model, {"fc1": 24}).to_bytes()))
    assert sparse_of(onnx.ModelProto.FromString(wider.to_bytes())).values == sparse_of(proto).values


@pytest.mark.parametrize("dtype", DTYPES, ids=TensorProto.DataType.Name)
def test_sparse_tensors_of_every_kind(dtype: int) -> None:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    array = (pruned(5, 3, 2) * 3).astype(kind)
    proto = perceptron("initializer")
    proto.graph.sparse_initializer.append(sparse("more", array, "coordinates"))
    model = n2n.load(proto)
    assert model.weights["more"].array().tobytes() == array.tobytes()
    again = n2n.load(n2n.widen(model, {"fc1": 30}).to_bytes())
    assert again.weights["more"].array().tobytes() == array.tobytes()


@pytest.mark.parametrize("form", ["linear", "coordinates"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 0)])
def test_a_sparse_tensor_without_values(shape: tuple[int, int], form: str) -> None:
    proto = perceptron("initializer")
    extra = proto.graph.sparse_initializer.add()
    extra.CopyFrom(sparse("extra", np.zeros((4, 3), np.float32), form))
    extra.dims[:] = shape
    model = n2n.load(proto)
    np.testing.assert_array_equal(model.weights["extra"].array(), np.zeros(shape, np.float32))


def test_sparse_weights_in_a_body() -> None:
    proto = perceptron("initializer")
    body = onnx.GraphProto(name="then")
    body.CopyFrom(proto.graph)
    del body.input[:]
    inner = helper.make_node("If", ["flag"], ["out"], then_branch=body, else_branch=body)
    graph = helper.make_graph(
        [inner],
        "outer",
        [
            helper.make_tensor_value_info("x", 1, ["n", 8]),
            helper.make_tensor_value_info("flag", 9, []),
        ],
        [helper.make_tensor_value_info("out", 1, ["n", 4])],
    )
    outer = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    model = n2n.load(outer)
    feeds = {"x": np.ones((2, 8), np.float32), "flag": np.array(True)}
    assert np.array_equal(run(model, feeds)["out"], run(proto, {"x": feeds["x"]})["y"])


def broken(change: Callable[[SparseTensorProto], None]) -> onnx.ModelProto:
    proto = perceptron("initializer")
    change(proto.graph.sparse_initializer[0])
    return proto


def set_index(at: int, value: int) -> Callable[[SparseTensorProto], None]:
    def change(tensor: SparseTensorProto) -> None:
        indices = numpy_helper.to_array(tensor.indices).copy()
        indices[at] = value
        tensor.indices.CopyFrom(numpy_helper.from_array(indices))

    return change


BROKEN: dict[str, tuple[Callable[[SparseTensorProto], Any], str]] = {
    "negative": (set_index(0, -1), "an index is outside"),
    "too large": (set_index(-1, 24 * 8), "an index is outside"),
    "twice": (set_index(0, 9), "two values in one place"),
    "fewer indices": (lambda t: t.indices.dims.__setitem__(0, 3), "bytes of data"),
    "wrong type": (lambda t: setattr(t.indices, "data_type", 1), "do not fit|bytes of data"),
    "negative size": (lambda t: t.dims.__setitem__(0, -3), "negative size"),
    "no name": (lambda t: setattr(t.values, "name", ""), "two initializers named"),
    "name of another": (lambda t: setattr(t.values, "name", "fc2.weight"), "two initializers"),
    "strings": (lambda t: setattr(t.values, "data_type", 8), "holds no numbers"),
    "a bomb": (lambda t: t.dims.__setitem__(0, 1 << 28), "when they are dense"),
    "beyond all": (lambda t: t.dims.__setitem__(0, 1 << 62), "when they are dense"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_sparse_tensors_that_are_refused(name: str) -> None:
    change, said = BROKEN[name]
    with pytest.raises(n2n.InvalidModel, match=said):
        n2n.load(broken(change))


# ---- the cache of huggingface_hub --------------------------------------------------------------


def cached(root: Path) -> tuple[Path, Path]:
    """A model and its data as links of a snapshot into blobs; the links' folder and the blobs."""
    blobs, snapshot = root / "blobs", root / "snapshots" / "abc" / "onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    onnx.save(
        dense(2), root / "model.onnx",
        save_as_external_data=True, location="model.onnx_data", size_threshold=0,
    )  # fmt: skip
    for name in ("model.onnx", "model.onnx_data"):
        blob = blobs / hashlib.sha256((root / name).read_bytes()).hexdigest()
        (root / name).rename(blob)
        (snapshot / name).symlink_to(Path("../../../blobs", blob.name))
    return snapshot, blobs


def test_a_model_in_the_cache_loads(tmp_path: Path) -> None:
    snapshot, _ = cached(tmp_path / "models--a--b")
    path = snapshot / "model.onnx"
    assert n2n.load(path).to_bytes() == dense(2).SerializeToString()
    assert n2n.verify(path, dense(2))


def test_the_cache_opens_no_other_way_out(tmp_path: Path) -> None:
    snapshot, blobs = cached(tmp_path / "models--a--b")
    data = snapshot / "model.onnx_data"
    contents = data.read_bytes()
    secret = tmp_path / "secret"
    secret.write_bytes(contents)
    (blobs / "deeper").mkdir()
    (blobs / "deeper" / "data").write_bytes(contents)
    other, other_blobs = cached(tmp_path / "models--c--d")
    for place in (secret, blobs / "deeper" / "data", (other / "model.onnx_data").resolve()):
        data.unlink()
        data.symlink_to(place)
        with pytest.raises(n2n.InvalidModel, match="outside the model's folder"):
            n2n.load(snapshot / "model.onnx")
    assert other_blobs.is_dir()


@pytest.mark.parametrize("broken", ["model is no link", "no snapshots", "no blobs"])
def test_what_only_looks_like_the_cache(broken: str, tmp_path: Path) -> None:
    snapshot, blobs = cached(tmp_path / "models--a--b")
    path = snapshot / "model.onnx"
    if broken == "model is no link":
        contents = path.read_bytes()
        path.unlink()
        path.write_bytes(contents)
    elif broken == "no snapshots":
        moved = tmp_path / "models--a--b" / "elsewhere"
        (tmp_path / "models--a--b" / "snapshots").rename(moved)
        path = moved / "abc" / "onnx" / "model.onnx"
    else:
        blobs.rename(blobs.with_name("files"))
        for link in snapshot.iterdir():
            name = link.readlink().name
            link.unlink()
            link.symlink_to(Path("../../../files", name))
    with pytest.raises(n2n.InvalidModel, match="outside the model's folder"):
        n2n.load(path)


# ---- sizes of -1 and 0 -------------------------------------------------------------------------


def with_sizes(size: int) -> onnx.ModelProto:
    proto = perceptron("initializer")
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = size
    proto.graph.value_info.append(helper.make_tensor_value_info("h", 1, [size, 24]))
    return proto


@pytest.mark.parametrize("size", [-1, 0])
def test_sizes_of_minus_one_and_zero_are_open(size: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(with_sizes(size).SerializeToString())
    model = n2n.load(path)
    assert model.save(tmp_path / "copy.onnx").read_bytes() == path.read_bytes()
    assert {d.name: d.growth for d in n2n.inspect(model)}["fc1"] == "any"
    grown = n2n.widen(path, {"fc1": 31}).save(tmp_path / "grown.onnx")
    for first in (path, model):
        report = n2n.verify(first, grown, sizes={"x[0]": [2, 3]})
        assert report and "sizes" not in " ".join(report.warnings)
    assert run(path, {"x": np.ones((5, 8), np.float32)})["y"].shape == (5, 4)
    assert n2n.costs(path).flops == n2n.costs(perceptron("initializer")).flops


@pytest.mark.parametrize("size", [-1, 0])
def test_frameworks_take_open_sizes(size: int) -> None:
    torch = pytest.importorskip("torch")
    model, x = n2n.load(with_sizes(size)), np.random.default_rng(0).standard_normal((5, 8))
    x = x.astype(np.float32)
    with torch.no_grad():
        found = n2n.to_torch(model)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, run(model, {"x": x})["y"], rtol=1e-5, atol=1e-5)


# ---- functions take what load takes ----------------------------------------------------------

TAKERS: dict[str, Callable[[Any, Path], Any]] = {
    "absorb": lambda m, out: n2n.absorb(m, {k: w.array() for k, w in n2n.load(m).weights.items()}),
    "blocks": lambda m, out: n2n.blocks(m),
    "costs": lambda m, out: n2n.costs(m),
    "deepen": lambda m, out: n2n.deepen(m, after="conv1"),
    "diff": lambda m, out: n2n.diff(m, m),
    "fold": lambda m, out: n2n.fold(m),
    "grow": lambda m, out: n2n.grow(m, params="2x"),
    "inspect": lambda m, out: n2n.inspect(m),
    "replay": lambda m, out: n2n.replay(m, n2n.widen(m, {"conv1": 9}).history),
    "save_safetensors": lambda m, out: n2n.save_safetensors(m, out / "w.safetensors"),
    "verify": lambda m, out: n2n.verify(m, m, seeds=1),
    "widen": lambda m, out: n2n.widen(m, {"conv1": 9}),
}
TAKERS_OF_TORCH: dict[str, Callable[[Any, Path], Any]] = {
    "state_dict": lambda m, out: n2n.state_dict(m),
    "to_torch": lambda m, out: n2n.to_torch(m),
    "write_package": lambda m, out: n2n.write_package(m, out / "package"),
}
LENET = ROOT / "fixtures" / "lenet.ts17.onnx"
FORMS: dict[str, Callable[[], Any]] = {
    "model": lambda: n2n.load(LENET),
    "str": lambda: str(LENET),
    "path": lambda: LENET,
    "bytes": LENET.read_bytes,
    "proto": lambda: onnx.load(LENET),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*TAKERS, *TAKERS_OF_TORCH])
def test_functions_take_what_load_takes(name: str, form: str, tmp_path: Path) -> None:
    if name in TAKERS_OF_TORCH:
        pytest.importorskip("torch")
    (TAKERS | TAKERS_OF_TORCH)[name](FORMS[form](), tmp_path)


def test_to_keras_takes_a_path() -> None:
    pytest.importorskip("keras")
    assert n2n.to_keras(LENET).count_params() == n2n.to_keras(n2n.load(LENET)).count_params()
