"""Weights in several files of limited size: mapped by onnxruntime, read again, replaced whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import onnx_net2net as n2n
from onnx_net2net.errors import OutputError, UsageError
from onnx_net2net.model import reading
from onnx_net2net.model.shards import file_size
from tests.console import FIXTURES, finished
from tests.cut_off import dense
from tests.small_models import proto_of, random_array

SMALL = 4000  # bytes: less than the first weight of ``dense`` takes


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def places(path: Path) -> dict[str, tuple[str, int, int]]:
    """File, offset and length of every tensor that lies beside the model."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    told = {t.name: {e.key: e.value for e in t.external_data} for t in tensors if t.external_data}
    return {n: (e["location"], int(e["offset"]), int(e["length"])) for n, e in told.items()}


def computed(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {"x": random_array(1, (3, 40))})
    return value


@pytest.mark.parametrize(("shards", "count"), [("8.5KB", 2), (SMALL, 4), ("7.3KB", 3), ("1GiB", 1)])
def test_files_are_no_larger_and_load_everywhere(
    shards: str | int, count: int, tmp_path: Path
) -> None:
    proto = dense(2, 3)
    path = n2n.load(proto).save(tmp_path / "m.onnx", shards=shards)
    (tmp_path / "whole").mkdir()
    whole = n2n.load(proto).save(tmp_path / "whole" / "m.onnx", external=False)
    files = sorted(tmp_path.glob("*.data"))
    assert len(files) == count
    if count > 1:
        token = files[0].name.split("-")[0]
        assert [f.name for f in files] == [
            f"{token}-{number:05}-of-{count:05}.data" for number in range(1, count + 1)
        ]
    where = places(path)
    for file in files:
        own = [place for place in where.values() if place[0] == file.name]
        assert own and file.stat().st_size == max(offset + length for _, offset, length in own)
        assert file.stat().st_size <= file_size(shards) or len(own) == 1
    assert all(offset % 64 == 0 for _, offset, _ in where.values())
    for one, two in zip(onnx.load(path).graph.initializer, proto.graph.initializer, strict=True):
        assert (one.name, one.dims, one.raw_data) == (two.name, two.dims, two.raw_data)
    assert n2n.load(path).to_bytes() == n2n.load(whole).to_bytes()
    np.testing.assert_array_equal(computed(path), computed(whole))
    again = n2n.load(path).save(tmp_path / "again.onnx", external=False)
    assert again.read_bytes() == whole.read_bytes()


def test_what_is_mapped_starts_at_a_page_in_every_file(tmp_path: Path) -> None:
    arrays = [random_array(1, (600, 500), seed) for seed in range(3)]
    proto = proto_of(*(numpy_helper.from_array(a, "w" * (i + 1)) for i, a in enumerate(arrays)))
    path = n2n.load(proto).save(tmp_path / "m.onnx", shards="2500KB")
    where = list(places(path).values())
    assert [offset for _, offset, _ in where] == [0, 19 << 16, 0]
    assert len({file for file, _, _ in where}) == 2


def test_shards_of_shards_are_copied_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted for comparison: the same by Python; neither changes a byte."""
    arrays = [random_array(1, (600, 500), seed) for seed in range(4)]
    proto = proto_of(*(numpy_helper.from_array(a, "w" * (i + 1)) for i, a in enumerate(arrays)))
    path = n2n.load(proto).save(tmp_path / "m.onnx", shards="2500KB")
    source = n2n.load(path)
    source.sha256()
    for weight in source.weights.values():
        for _ in weight.examined(True):
            pass
    copied: list[int] = []
    honest = reading.OpenFile.copy

    def copy(self: reading.OpenFile, start: int, end: int, file: object) -> None:
        copied.append(end - start)
        honest(self, start, end, file)

    monkeypatch.setattr(reading.OpenFile, "copy", copy)
    other = source.save(tmp_path / "n.onnx", shards="2500KB")
    assert copied == [(19 << 16) + 1_200_000] * 2, "two tensors at once, with what is between them"
    for one, two in zip(
        sorted(tmp_path.glob("m.onnx.*")), sorted(tmp_path.glob("n.onnx.*")), strict=True
    ):
        assert one.read_bytes() == two.read_bytes()
    assert n2n.load(other).sha256() == source.sha256()


def test_nothing_is_left_of_a_model_of_more_or_larger_files(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for shards, count in ((SMALL, 4), ("8.5KB", 2), ("12.1KB", 2), (SMALL, 4), (None, 1)):
        n2n.load(dense(2, 3)).save(path, external=True, shards=shards)
        assert len(names(tmp_path)) == 1 + count
        assert n2n.verify(path, dense(2, 3))
    n2n.load(dense(2, 3)).save(path, external=False)
    assert names(tmp_path) == ["m.onnx"]


def test_another_division_has_another_name(tmp_path: Path) -> None:
    """Else a reader of the old model would for an instant find its tensors in other files."""
    divisions = []
    for shards in ("8.5KB", "12.1KB"):  # two files each: of 2 and 2 tensors, of 3 and 1
        path = n2n.load(dense(2, 3)).save(tmp_path / "m.onnx", shards=shards)
        divisions.append({file for file, _, _ in places(path).values()})
        assert {file[-19:] for file in divisions[-1]} == {
            "-00001-of-00002.data"[-19:], "-00002-of-00002.data"[-19:],
        }  # fmt: skip
    assert not divisions[0] & divisions[1]


@pytest.mark.parametrize(
    "asked",
    ["", "5", "5 bananas", "-5GB", "0MB", "5GBs", "1e3MB", "5iB", "nan", "²GB", "9" * 19 + "GB", 0,
     True],
)  # fmt: skip
def test_sizes_that_are_refused(asked: str | int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a size\n  remedy: for example 5GB"):
        n2n.load(dense(2)).save(tmp_path / "m.onnx", shards=asked)
    assert names(tmp_path) == []


def test_sizes() -> None:
    for text, size in {
        "5GB": 5 * 10**9, "500MB": 500 * 10**6, "1.5 gb": 1_500_000_000, "2GiB": 2 << 30,
        "64kib": 1 << 16, "0.5KB": 500, "12b": 12, "1TB": 10**12,
    }.items():  # fmt: skip
        assert file_size(text) == size
    assert file_size(7) == 7


def test_shards_of_one_file_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shards are external data"):
        n2n.load(dense(2)).save(tmp_path / "m.onnx", shards="1MB", external=False)
    assert names(tmp_path) == []


def test_more_files_than_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_net2net.model.shards.MOST_SHARDS", 3)
    with pytest.raises(UsageError, match="shards of 4,000 bytes would be 4 files"):
        n2n.load(dense(2, 3)).save(tmp_path / "m.onnx", shards=SMALL)
    assert names(tmp_path) == []


def test_on_the_command_line(tmp_path: Path) -> None:
    model, target = FIXTURES / "mlp.dynamo.onnx", tmp_path / "wide.onnx"
    arguments = ["widen", str(model), "--factor", "16", "--all", "-o", str(target)]
    bad = finished(*arguments, "--shards", "huge")
    assert bad.code == 2 and "shards 'huge' is not a size" in bad.err
    assert names(tmp_path) == []
    done = finished(*arguments, "--shards", "100KB")
    assert done.code == 0, done.err
    data = [name for name in names(tmp_path) if name.endswith(".data")]
    assert len(data) == 3
    assert f"wrote {target} and {target.parent / data[0]} to {data[-1]} (" in done.out
    assert n2n.verify(model, target)
    again = finished(*arguments, "--shards", "410KB")
    assert again.code == 2 and "exists already" in again.err
    assert [name for name in names(tmp_path) if name.endswith(".data")] == data
    assert finished(*arguments, "--shards", "410KB", "--force").code == 0
    fewer = [name for name in names(tmp_path) if name.endswith(".data")]
    assert 1 < len(fewer) < len(data) and not set(fewer) & set(data)
    assert n2n.verify(model, target)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    path = n2n.load(dense(2, 3)).save(tmp_path / "m.onnx", shards=SMALL)
    last = max(tmp_path.glob("*.data"))
    last.unlink()
    with pytest.raises(n2n.InvalidModel, match=f"its file {last.name} is missing"):
        n2n.load(path)


def test_a_failed_shard_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = n2n.load(dense(2, 3)).save(tmp_path / "m.onnx", shards=SMALL)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    (tmp_path / "m.onnx").chmod(0o640)
    n2n.load(dense(3, 3)).save(tmp_path / "other.onnx", shards=SMALL)
    token = next(tmp_path.glob("other.onnx.*")).name.removeprefix("other.onnx.").split("-")[0]
    for file in tmp_path.glob("other*"):
        file.unlink()
    (tmp_path / f"m.onnx.{token}-00003-of-00004.data").mkdir()  # in the way of the third
    with pytest.raises(OutputError, match="is a folder"):
        n2n.load(dense(3, 3)).save(path, shards=SMALL)
    (tmp_path / f"m.onnx.{token}-00003-of-00004.data").rmdir()
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_data_that_another_model_needs_stay(tmp_path: Path) -> None:
    """It may refer to them in another way, or have been moved away."""
    path = n2n.load(dense(2)).save(tmp_path / "m.onnx", shards="1KB")
    other = onnx.load(path, load_external_data=False)
    for tensor in other.graph.initializer:
        for entry in tensor.external_data:
            entry.value = f"./{entry.value}" if entry.key == "location" else entry.value
    onnx.save(other, tmp_path / "other.onnx")
    before = n2n.load(tmp_path / "other.onnx").sha256()
    n2n.load(dense(3)).save(path, shards="1KB")
    assert n2n.load(tmp_path / "other.onnx").sha256() == before
    (tmp_path / "away").mkdir()
    path.rename(tmp_path / "away" / path.name)
    kept = {file.name for file in tmp_path.iterdir()}
    n2n.load(dense(4)).save(path, shards="1KB")
    assert {file.name for file in tmp_path.iterdir()} > kept


def test_a_name_that_no_model_can_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"m\xff.onnx")
    with pytest.raises(n2n.OutputError, match="not UTF-8"):
        n2n.load(dense(2)).save(path, shards="1KB")
    assert not list(tmp_path.iterdir())
