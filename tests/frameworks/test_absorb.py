"""Weights into the file and out of it: nothing forgotten, nothing wrong let in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from onnx import helper, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks.absorb import PROBLEMS, absorb
from onnx_net2net.frameworks.names import Names
from onnx_net2net.frameworks.roles import FLOATS, Role, paths, roles
from onnx_net2net.frameworks.safetensors_file import read
from onnx_net2net.frameworks.state_dict import named_weights, save_safetensors
from onnx_net2net.model.history import TIES
from onnx_net2net.model.model import Model, load
from onnx_net2net.verification.verify import run
from tests.console import ROOT

FIXTURES = sorted((ROOT / "fixtures").glob("*.onnx"))
RESNET = ROOT / "fixtures" / "resnet.dynamo-raw.onnx"
State = dict[str, np.ndarray]


def trained(model: Model, by: Mapping[str, str] | None = None) -> State:
    """Other values, each distinct, for all that moves in training; keys as ``by`` says."""
    found = {}
    for name, role in roles(model).items():
        if role is not Role.CONSTANT:
            array = model.weights[name].array()
            found[(by or {}).get(name, name)] = array * array.dtype.type(1.5)
    return found


def values(model: Model) -> State:
    return {name: weight.array() for name, weight in model.weights.items()}


# ---- into the file ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_absorbed_values_are_in_the_file_and_nothing_else_changed(path: Path) -> None:
    model = load(path)
    before, state = values(model), trained(model)
    after = load(absorb(model, trained(model, paths(model))).to_bytes())
    assert state or "qdq" in path.stem
    for name, array in values(after).items():
        assert array.dtype == before[name].dtype
        assert array.tobytes() == state.get(name, before[name]).tobytes(), name
    plain, other = after.proto.graph, model.proto.graph
    assert list(plain.node) == list(other.node) or "Constant" in {n.op_type for n in other.node}
    assert [step["operation"] for step in after.history] == ["absorb"]
    assert after.history[0]["parent"] == model.sha256()
    assert values(model)[next(iter(before))].tobytes() == next(iter(before.values())).tobytes()


def refusal(model: Model, state: Mapping[str, object], **options: object) -> str:
    with pytest.raises(n2n.UsageError) as error:
        absorb(model, state, **options)  # type: ignore[arg-type]
    assert error.value.remedy
    return str(error.value)


def test_one_error_tells_all_that_is_wrong() -> None:
    model = load(RESNET)
    state = trained(model)
    del state["layer1.0.bn1.running_var"], state["fc.weight"]
    state["conv9.weight"] = np.ones(3)
    state["fc.bias"] = state["fc.bias"][:-1]
    state["bn1.weight"] = np.full_like(state["bn1.weight"], np.nan)
    state["bn1.bias"] = state["bn1.bias"].astype(np.float64) * (1 + 1e-9)
    text = refusal(model, state)
    assert "unknown" not in text and "does not have: conv9.weight" in text
    assert "not given: fc.weight, layer1.0.bn1.running_var" in text.replace(
        "layer1.0.bn1.running_var, fc.weight", "fc.weight, layer1.0.bn1.running_var"
    )
    size = len(trained(model)["fc.bias"])
    assert f"fc.bias is [{size - 1}], not [{size}]" in text
    assert "infinite values: bn1.weight" in text
    assert "hold exactly: bn1.bias" in text
    for problem in ("unknown", "missing", "shape", "not finite", "type"):
        assert PROBLEMS[problem][1] in text


@pytest.mark.parametrize("kind", [Role.PARAMETER, Role.STATISTIC])
def test_every_single_weight_is_missed(kind: Role) -> None:
    model = load(RESNET)
    for name, role in roles(model).items():
        if role is kind:
            state = trained(model)
            del state[name]
            assert f"not given: {name}" in refusal(model, state)


def test_infinite_weights_are_refused_and_infinite_masks_are_not() -> None:
    model = load(ROOT / "fixtures" / "mlp.float16.onnx")
    state = trained(model)
    state["fc1.bias"] = np.full_like(state["fc1.bias"], -np.inf)
    assert "fc1.bias" in refusal(model, state)
    state["fc1.bias"] = np.full(state["fc1.bias"].shape, 1e6, np.float32)
    assert "beyond the range" in refusal(model, state, cast=True)


def test_other_types_are_taken_where_they_are_exact_or_asked_for() -> None:
    model = load(ROOT / "fixtures" / "mlp.float16.onnx")
    state = trained(model)
    exact = {name: array.astype(np.float32) for name, array in state.items()}
    assert values(absorb(model, exact))["fc1.bias"].tobytes() == state["fc1.bias"].tobytes()
    finer = {name: array + np.float32(1e-6) for name, array in exact.items()}
    assert "--cast" in refusal(model, finer)
    rounded = values(absorb(model, finer, cast=True))["fc1.bias"]
    assert rounded.dtype == np.float16 and np.allclose(rounded, exact["fc1.bias"], atol=1e-3)


def test_wrappers_counters_and_ignored_names() -> None:
    model = load(RESNET)
    state = trained(model)
    odd: dict[str, object] = {}
    for i, (name, array) in enumerate(state.items()):
        first, _, rest = name.partition(".")
        wrapped = (f"module.{name}", f"_orig_mod.{name}", f"module.module.{first}._orig_mod.{rest}",
                   f"_fsdp_wrapped_module.{first}._checkpoint_wrapped_module.{rest}")  # fmt: skip
        odd[wrapped[i % len(wrapped)]] = array
    odd["module.bn1.num_batches_tracked"] = np.int64(7)
    after = values(absorb(model, odd))
    assert all(after[name].tobytes() == array.tobytes() for name, array in state.items())
    odd["aux.weight"] = np.ones(3)
    assert "aux.weight" in refusal(model, odd)
    absorb(model, odd, ignore=["aux.*"])


def test_a_name_that_begins_like_a_wrapper_is_taken_as_it_is() -> None:
    names = Names(load(RESNET))
    names._known["module.fc.weight"] = "another"
    assert names.find("module.fc.weight") == "another"
    assert names.find("module.fc.bias") == "fc.bias"
    assert names.find("module.nothing") is None


def test_a_module_that_was_wrapped_for_the_export_gives_its_own_names() -> None:
    model = load(ROOT / "fixtures" / "vit.dynamo-raw.onnx")
    state = trained(model)
    wrapped = absorb(model, {f"wrapper.inner.{name}": array for name, array in state.items()})
    assert values(wrapped)["blocks.0.attn.proj.weight"].tobytes() == (
        state["blocks.0.attn.proj.weight"].tobytes()
    )
    bert = load(ROOT / "fixtures" / "bert.dynamo-raw.onnx")
    state = trained(bert)
    assert all(name.startswith("model.") for name in state)
    bare = {name.removeprefix("model."): array for name, array in state.items()}
    for given in (bare, {f"module.{name}": array for name, array in bare.items()}):
        after = values(absorb(bert, given))
        assert all(after[name].tobytes() == array.tobytes() for name, array in state.items())
    text = refusal(bert, {"another.weight": np.ones(3), **bare})
    assert "does not have: another.weight, bert.embeddings" in text
    mixed = {**bare, "model.classifier.bias": bare["classifier.bias"]}
    del mixed["classifier.bias"]
    assert "does not have: bert.embeddings" in refusal(bert, mixed)


def test_a_prefix_that_is_not_the_only_one_is_not_guessed() -> None:
    names = Names(load(RESNET))
    names._known = {"a.fc.weight": "first", "b.fc.weight": "second", "a.fc.bias": "third"}
    names.fit(["fc.weight"])
    assert names.find("fc.weight") is None
    names.fit(["fc.weight", "fc.bias"])
    assert (names.find("fc.weight"), names.find("fc.bias")) == ("first", "third")


def test_values_are_copied_from_what_goes_on_training() -> None:
    model = load(ROOT / "fixtures" / "mlp.ts17.onnx")
    state = trained(model)
    expected = state["fc1.bias"].copy()
    after = absorb(model, state)
    state["fc1.bias"] += 1
    assert after.weights["fc1.bias"].array().tobytes() == expected.tobytes()


def tied(model: Model) -> Model:
    """``model`` with another name for one of its weights."""
    model.proto.metadata_props.add(key=TIES, value=json.dumps({"head.weight": "fc1.weight"}))
    return load(model.to_bytes())


def test_ties_are_given_once_or_alike() -> None:
    model = tied(load(ROOT / "fixtures" / "mlp.ts17.onnx"))
    state = trained(model)
    state["head.weight"] = state.pop("fc1.weight")
    assert values(absorb(model, state))["fc1.weight"].tobytes() == state["head.weight"].tobytes()
    state["fc1.weight"] = state["head.weight"].copy()
    absorb(model, state)
    state["fc1.weight"] = state["fc1.weight"] + 1
    assert "another name of the same tied weight" in refusal(model, state)


def test_checkpoints_and_other_things_are_told_apart() -> None:
    model = load(ROOT / "fixtures" / "mlp.ts17.onnx")
    assert "checkpoint['model']" in refusal(model, {"epoch": 3, "model": trained(model)})
    for thing in (3, [1, 2], object()):
        with pytest.raises(n2n.UsageError, match="holds no weights by name"):
            absorb(model, thing)


def test_buffers_may_be_given_and_integers_must_agree() -> None:
    model = load(ROOT / "fixtures" / "bert.dynamo.onnx")
    state = trained(model)
    name = "model.bert.embeddings.position_ids"
    state[name] = model.weights[name].array()
    absorb(model, state)
    state[name] = state[name] + 1
    assert "integers" in refusal(model, state)


# ---- kinds of weights ---------------------------------------------------------------------------


def test_every_kind_of_weights_gives_the_same_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = load(RESNET)
    state = trained(model, paths(model))
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    np.savez(tmp_path / "weights.npz", **state)
    torch.save(tensors, tmp_path / "weights.pt")
    save_safetensors(absorb(model, state), tmp_path / "weights.safetensors")
    variables = [SimpleNamespace(name=n, path=n, numpy=lambda a=a: a) for n, a in state.items()]
    kinds = [
        tensors,
        {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()},
        SimpleNamespace(state_dict=lambda: tensors),
        SimpleNamespace(weights=variables),
        *(tmp_path / f"weights.{suffix}" for suffix in ("npz", "pt", "safetensors")),
    ]
    expected = values(absorb(model, state))
    for kind in kinds:
        found = values(absorb(model, kind))
        assert all(found[n].tobytes() == array.tobytes() for n, array in expected.items()), kind


@pytest.mark.parametrize("name", ["resnet.dynamo-raw", "lstm.dynamo", "keras-gru.tf2onnx"])
def test_trained_modules_come_back_whole(name: str) -> None:
    """Parameters and statistics of the module that was made from the file, and they alone."""
    torch = pytest.importorskip("torch")
    model = load(ROOT / "fixtures" / f"{name}.onnx")
    module = n2n.to_torch(model)
    expected = trained(model)
    own = paths(model)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            moves = tensor.is_floating_point() and tensor.numel() > 1
            tensor.mul_(1.5 if moves else 1)
    state = dict(module.state_dict())
    assert {own[n] for n in expected} <= state.keys()
    after = values(absorb(model, {own[n]: state[own[n]] for n in expected}))
    for key, array in expected.items():
        assert after[key].tobytes() == array.tobytes(), key
    parameters = {key for key, _ in module.named_parameters()}
    assert parameters == {own[n] for n, r in roles(model).items() if r is Role.PARAMETER}


def test_trained_keras_models_come_back_whole() -> None:
    pytest.importorskip("tensorflow")
    pytest.importorskip("keras")
    model = load(RESNET)
    network = n2n.to_keras(model)
    expected = trained(model)
    for variable in network.weights:
        variable.assign(variable.numpy() * 1.5)
    after = values(absorb(model, network))
    for key, array in expected.items():
        assert after[key].tobytes() == array.tobytes(), key


def test_files_that_are_not_weights(tmp_path: Path) -> None:
    model = load(ROOT / "fixtures" / "mlp.ts17.onnx")
    pytest.importorskip("torch")
    for suffix in ("npz", "pt", "safetensors", "onnx"):
        path = tmp_path / f"weights.{suffix}"
        with pytest.raises(n2n.UsageError):
            absorb(model, path)
        for contents in (b"", b"nothing", b"\x05" + bytes(40), b"\x02" + bytes(7) + b"[]"):
            path.write_bytes(contents)
            with pytest.raises(n2n.UsageError):
                absorb(model, path)


def test_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"fc1.weight": SimpleNamespace()}, tmp_path / "module.pt")
    with pytest.raises(n2n.UsageError, match="state_dict"):
        absorb(load(ROOT / "fixtures" / "mlp.ts17.onnx"), tmp_path / "module.pt")


# ---- safetensors --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp.bfloat16", "mlp.float16", "mlp.float64", "resnet.ts17-raw"])
def test_safetensors_files_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors")
    pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    model = load(ROOT / "fixtures" / f"{name}.onnx")
    weights = {n.replace("::", "."): w for n, w in named_weights(_named(model)).items()}
    path = save_safetensors(_named(model), tmp_path / "ours.safetensors")
    with library.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    theirs = load_file(path)
    assert theirs.keys() == weights.keys()
    save_file(theirs, tmp_path / "theirs.safetensors")
    again = read(tmp_path / "theirs.safetensors")
    for key, weight in weights.items():
        assert again[key].dtype == weight.dtype and again[key].shape == weight.shape
        assert bytes(again[key].payload()) == bytes(weight.payload())
    with pytest.raises(n2n.OutputError, match="exists already"):
        save_safetensors(_named(model), path, force=False)
    save_safetensors(_named(model), path)


def _named(model: Model) -> Model:
    """With the names that a TorchScript export gave to transposed weights replaced."""
    text = model.to_bytes().replace(b"onnx::MatMul_", b"ours--MatMul_")
    return load(text)


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_safetensors(load(RESNET), path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])

    def with_entry(**entry: object) -> bytes:
        text = json.dumps({**header, "fc.bias": {**header["fc.bias"], **entry}}).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    begin, end = header["fc.bias"]["data_offsets"]
    for damaged in (
        whole[:-1],
        with_entry(data_offsets=[begin + 10**9, end + 10**9]),
        with_entry(data_offsets=[end, begin]),
        with_entry(data_offsets=[begin]),
        with_entry(shape=[-1, 2]),
        with_entry(shape=[True]),
        with_entry(dtype="F4"),
        with_entry(shape=[10**12]),
    ):
        path.write_bytes(damaged)
        with pytest.raises(n2n.UsageError, match=r"a\.safetensors"):
            read(path)
    path.write_bytes(with_entry())
    assert read(path)["fc.bias"].shape == load(RESNET).weights["fc.bias"].shape


def test_bfloat16_passes_through_arrays(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from onnx_net2net.frameworks.state_dicts import to_array, to_tensor

    for own, dtype in ((ml_dtypes.bfloat16, torch.bfloat16), (np.float16, torch.float16)):
        array = np.float32([[1.5, -2], [0, 3]]).astype(own)[:, ::-1]
        tensor = to_tensor(array)
        assert tensor.dtype == dtype and tensor.tolist() == array.astype(float).tolist()
        assert to_array(tensor).dtype == own and to_array(tensor).tolist() == array.tolist()


# ---- out of the file, names kept ----------------------------------------------------------------


def test_unfolded_exports_keep_names_and_layouts() -> None:
    model = load(RESNET)
    found = named_weights(model)
    assert found.keys() == {n for n, r in roles(model).items() if r is not Role.CONSTANT}


def test_lost_names_are_refused() -> None:
    for name in ("bert.dynamo", "bert.ts17", "resnet.ts17"):
        with pytest.raises(n2n.Refused, match="lost the author's names") as error:
            named_weights(load(ROOT / "fixtures" / f"{name}.onnx"))
        assert "--like" in str(error.value.remedy)


def test_ties_come_out_under_each_name() -> None:
    model = tied(_named(load(ROOT / "fixtures" / "mlp.ts17.onnx")))
    found = named_weights(model)
    assert found["head.weight"] is found["fc1.weight"]


def test_floats_only() -> None:
    for path in FIXTURES:
        model = load(path)
        assert all(
            model.weights[n].dtype in FLOATS
            for n, r in roles(model).items()
            if r is not Role.CONSTANT
        )


def square(op: str, **attributes: int) -> Model:
    """One Linear layer of four inputs and outputs, in a file that holds its transpose or not."""
    nodes = [
        helper.make_node(op, ["x", "fc.weight"], ["h"], **attributes),
        helper.make_node("Add", ["h", "fc.bias"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    weights = {"fc.weight": rng.normal(size=(4, 4)), "fc.bias": rng.normal(size=4)}
    graph = helper.make_graph(
        nodes,
        "square",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info("y", 1, ["n", 4])],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return load(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def test_square_matrices_are_not_taken_the_wrong_way_round() -> None:
    torch = pytest.importorskip("torch")
    author = torch.nn.Sequential()
    author.add_module("fc", torch.nn.Linear(4, 4))
    right = square("Gemm", transB=1)
    assert n2n.to_torch(right).fc.weight.shape == (4, 4)
    for model in (square("MatMul"), square("Gemm")):
        with pytest.raises(UsageError, match=r"square weights of Linear layers.*: fc\.weight"):
            absorb(model, author)
        module = n2n.to_torch(model)
        assert absorb(model, module).history[-1]["weights"] == 2
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    (found,) = run(absorb(right, author), {"x": x}).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, author(torch.from_numpy(x)), atol=1e-6)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.ones((4, 4), np.complex64), "holds complex64, not real numbers"),
        (np.full((4, 4), "1"), "holds <U1, not real numbers"),
        (np.full((4, 4), 1.0, object), "holds object, not real numbers"),
        ([[1.0], [1.0, 2.0]], "is no array"),
        (np.ones((4, 4), bool), "cannot hold exactly: fc.weight"),
    ],
)
def test_what_holds_no_real_numbers_is_refused(value: object, problem: str) -> None:
    model = square("MatMul")
    with pytest.raises(UsageError, match=problem):
        absorb(model, {"fc.weight": value, "fc.bias": np.zeros(4, np.float32)})
