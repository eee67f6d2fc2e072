"""Tensors in files beside the model: mapped, kept inside its folder, aligned when written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.errors import OutputError
from onnx_net2net.model import saving
from onnx_net2net.model.model import load
from onnx_net2net.model.weights import Stored
from tests.small_models import (
    assert_same_model,
    dense,
    proto_of,
    random_array,
    refusal,
    with_initializer,
)


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "source.onnx"
    onnx.save(dense(), path)
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before, "the source was written to"


@pytest.fixture
def external(tmp_path: Path) -> Path:
    folder = tmp_path / "external"
    folder.mkdir()
    onnx.save(
        dense(), folder / "m.onnx",
        save_as_external_data=True, location="weights.bin", size_threshold=0,
    )  # fmt: skip
    return folder / "m.onnx"


def the_data_of(model: Path) -> Path:
    """The one data file of a model that was saved here, named by what it holds."""
    (data,) = model.parent.glob(f"{model.name}.*.data")
    tensors = onnx.load(model).graph.initializer
    large = [tensor.raw_data for tensor in tensors if len(tensor.raw_data) > 1024]
    digest = sha256(b"".join(sha256(contents).digest() for contents in large)).hexdigest()
    assert data.name == f"{model.name}.{digest[:16]}.data"
    return data


def test_external_data_is_not_read(external: Path) -> None:
    model = load(external)
    for entry in dense().graph.initializer:
        np.testing.assert_array_equal(
            model.weights[entry.name].array(), numpy_helper.to_array(entry)
        )
    assert isinstance(model.weights["w"], Stored)
    # The small ones are needed at once: shapes are evaluated.
    assert model.proto.graph.initializer[2].HasField("raw_data")
    assert not any(entry.external_data for entry in model.proto.graph.initializer)
    assert model.to_bytes() == dense().SerializeToString()


def test_external_stays_external(external: Path, tmp_path: Path) -> None:
    load(external).save(tmp_path / "copy.onnx")
    data = the_data_of(tmp_path / "copy.onnx")
    assert len(list(tmp_path.glob("copy*"))) == 2 and data.stat().st_size == 40 * 30 * 4
    assert_same_model(tmp_path / "copy.onnx", dense())
    load(external).save(tmp_path / "single.onnx", external=False)
    assert (tmp_path / "single.onnx").read_bytes() == dense().SerializeToString()
    assert len(list(tmp_path.glob("single*"))) == 1


def test_external_tensors_start_where_they_can_be_mapped(tmp_path: Path) -> None:
    arrays = [
        random_array(1, shape, seed) for seed, shape in enumerate([(333,), (600, 500), (777,)])
    ]
    proto = proto_of(*(numpy_helper.from_array(a, "w" * (i + 1)) for i, a in enumerate(arrays)))
    load(proto).save(tmp_path / "m.onnx", external=True)
    small = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    offsets = [
        int({e.key: e.value for e in entry.external_data}["offset"])
        for entry in small.graph.initializer
    ]
    assert offsets[0] == 0 and offsets[1] == 64 << 10 and offsets[2] % 64 == 0
    assert_same_model(tmp_path / "m.onnx", proto)
    assert load(tmp_path / "m.onnx").to_bytes() == proto.SerializeToString()


def test_external_data_of_constants_and_subgraphs(tmp_path: Path) -> None:
    kernel = numpy_helper.from_array(random_array(1, (40, 30)), "kernel")
    proto = proto_of(nodes=[helper.make_node("Constant", [], ["w"], value=kernel)])
    onnx.save(
        proto, tmp_path / "m.onnx",
        save_as_external_data=True, location="m.bin", convert_attribute=True,
    )  # fmt: skip
    assert (tmp_path / "m.bin").exists()
    model = load(tmp_path / "m.onnx")
    assert model.to_bytes() == dense_constant_bytes(kernel)
    np.testing.assert_array_equal(model.weights["w"].array(), numpy_helper.to_array(kernel))


def dense_constant_bytes(kernel: TensorProto) -> bytes:
    return proto_of(
        nodes=[helper.make_node("Constant", [], ["w"], value=kernel)]
    ).SerializeToString()


def test_too_big_for_one_file_goes_external(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "SINGLE_FILE_LIMIT", 4000)
    model = load(saved)
    with pytest.raises(OutputError, match=r"one\.onnx: the model is above .*\n  remedy: let"):
        model.save(tmp_path / "one.onnx", external=False)
    model.save(tmp_path / "two.onnx")
    data = the_data_of(tmp_path / "two.onnx").name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.onnx", "two.onnx", data]
    assert_same_model(tmp_path / "two.onnx", dense())


def test_external_source_can_be_replaced_by_itself(external: Path) -> None:
    model = load(external)
    model.save(external.parent / "weights.bin", force=True, external=False)
    assert (external.parent / "weights.bin").read_bytes() == dense().SerializeToString()
    np.testing.assert_array_equal(model.weights["w"].array(), random_array(1, (40, 30)))
    twin = load(external.parent / "weights.bin")
    twin.save(external, force=True, external=True)
    twin.save(external, force=True, external=True)
    assert_same_model(external, dense())
    data = the_data_of(external).name
    assert sorted(path.name for path in external.parent.iterdir()) == [
        "m.onnx", data, "weights.bin",
    ]  # fmt: skip


def external_model(folder: Path, size: int = 40 * 30 * 4, **keys: object) -> Path:
    """A model whose weight lies in ``data.bin``; ``keys`` override what it says of it."""
    (folder / "data.bin").write_bytes(bytes(range(250)) * (size // 250) + bytes(size % 250))
    tensor = TensorProto(name="w", data_type=1, dims=[40, 30], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "data.bin", **keys}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    path = folder / "m.onnx"
    path.write_bytes(with_initializer(tensor).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"location": "missing.bin"}, "its file missing.bin is missing"),
        ({"location": None}, "without a usable location"),
        ({"location": ""}, "without a usable location"),
        ({"location": "nul\0.bin"}, "without a usable location"),
        ({"location": "../data.bin"}, "outside the model's folder"),
        ({"location": "sub/../../data.bin"}, "outside the model's folder"),
        ({"location": "..\\data.bin"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "C:\\data.bin"}, "outside the model's folder"),
        ({"location": "\\\\host\\share\\data.bin"}, "outside the model's folder"),
        ({"location": "x" * 300}, "cannot be read"),
        ({"location": "."}, "not a regular file"),
        ({"offset": 4}, "needs bytes 4 to 4804 of data.bin, which has 4800"),
        ({"offset": 1 << 62}, "needs bytes"),
        ({"offset": -4}, "offset '-4'"),
        ({"offset": "9" * 5000}, "offset '999"),
        ({"offset": "four"}, "offset 'four'"),
        ({"length": 4796}, "4796 bytes of external data, but FLOAT (40, 30) takes 4800"),
        ({"length": 4804}, "takes 4800"),
        ({"length": "1e3"}, "length '1e3'"),
    ],
    ids=str,
)
def test_external_data_that_is_refused(keys: dict, said: str, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(9000))
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    error = refusal(external_model(folder, **keys))
    assert said in error.problem and "'w'" in error.problem


def test_external_data_that_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for keys in ({}, {"offset": 0}, {"length": 4800}, {"checksum": "00"}):
        assert load(external_model(tmp_path, **keys)).weights["w"].array().shape == (40, 30)
    shutil.copy(tmp_path / "data.bin", tmp_path / "sub" / "inner.bin")
    assert load(external_model(tmp_path, location="sub/inner.bin")).weights["w"].nbytes == 4800
    (tmp_path / "link.bin").symlink_to(tmp_path / "sub" / "inner.bin")
    assert load(external_model(tmp_path, location="link.bin")).weights["w"].nbytes == 4800


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(4800))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "deep.bin").write_bytes(bytes(4800))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "away").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder / "loop")
    # A folder whose name merely begins the same is outside as well.
    (tmp_path / "models2").mkdir()
    shutil.copy(tmp_path / "secret.bin", tmp_path / "models2" / "near.bin")
    (folder / "near.bin").symlink_to(tmp_path / "models2" / "near.bin")
    for location in ("link.bin", "away/deep.bin", "near.bin"):
        assert (
            "outside the model's folder"
            in refusal(external_model(folder, location=location)).problem
        )
    assert "cannot be read" in refusal(external_model(folder, location="loop")).problem


def test_a_model_given_as_an_object_has_no_folder(tmp_path: Path) -> None:
    contents = external_model(tmp_path).read_bytes()
    for source in (contents, onnx.ModelProto.FromString(contents)):
        assert "load the model by its path" in str(refusal(source))


def test_external_data_of_attributes_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes, referred to again and again, must not fill the memory."""
    monkeypatch.setattr("onnx_net2net.model.loading.SINGLE_FILE_LIMIT", 8 << 20)
    size = 1 << 20
    (tmp_path / "data.bin").write_bytes(bytes(size))
    model = with_initializer()
    for index in range(9):
        tensor = TensorProto(data_type=TensorProto.UINT8, dims=[size])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="data.bin")
        model.graph.node.append(helper.make_node("Constant", [], [f"c{index}"], value=tensor))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert "over 2 GiB" in refusal(path).problem
    del model.graph.node[-1]
    path.write_bytes(model.SerializeToString())
    assert load(path).weights["c7"].nbytes == size
