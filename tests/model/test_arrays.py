"""NumPy's files as strangers write them: plain arrays or one clear reason, in little memory."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_net2net.model import arrays


def _archive(members: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)
    return buffer.getvalue()


def _member(shape: str, descr: str = "'<f4'", data: bytes = bytes(48)) -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def test_what_numpy_writes_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {
        "floats": rng.normal(size=(3, 4)).astype(np.float32),
        "columns": np.asfortranarray(rng.normal(size=(3, 4))),
        "empty": np.zeros((0, 3), np.int8),
        "scalar": np.array(7),
        "text": np.array(["a", "bc"]),
    }
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", **given)
        found = arrays.read(tmp_path / "a.npz")
        assert isinstance(found, dict) and found.keys() == given.keys()
        for name, array in given.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
    np.save(tmp_path / "a.npy", given["columns"])
    assert np.array_equal(arrays.read(tmp_path / "a.npy"), given["columns"])


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (_archive({"x.npy": _member("(1048576, 1048576)")}), "cannot hold"),
        (_archive({"x.npy": _member("(0, 9223372036854775807)")}), "cannot hold"),
        (_archive({"x.npy": _member("(-3, 4)")}), "its shape is"),
        (_archive({"x.npy": _member("(3, 4)", "'|O'")}), "could run code"),
        (_archive({"x.npy": _member("(3, 4)", "[('a', '|O')]")}), "could run code"),
        (_archive({"x.npy": _member("(30, 50)")}), "cannot hold"),
        (_archive({"x.npy": b"no array"}), "."),
        (_archive({"x.npy": _member("(9,)", data=bytes(600 << 20))}), "claims to hold"),
        (_archive({"x.npy": _member("(3, 4)")})[:-30], "."),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"PK\x03\x04 and nothing more", "."),
        (b"", "."),
    ],
    ids=range(12),
)
def test_what_lies_is_refused(tmp_path: Path, contents: bytes, said: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=said):
        arrays.read(path)
