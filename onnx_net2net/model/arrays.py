"""Arrays in NumPy's files, as strangers write them: nothing is unpickled, no header is believed.

arrays = read(Path("inputs.npz"))       # {"x": array}; one array of an .npy file
write(Path("outputs.npz"), {"y": array})
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

__all__ = ["read", "write"]

Array = np.ndarray[Any, Any]
# Bytes that an archive may hold: deflate shrinks by 1,000 at most, and real data by far less.
FREE, RATIO = 256 << 20, 100
_DAMAGED = (EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, KeyError)
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read(path: Path) -> dict[str, Array] | Array:
    """Read the arrays of an archive by name, or the one array of a file.

    Raises OSError, and ValueError for what is neither, or not what it says.
    """
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return _array(file, size)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                total = sum(member.file_size for member in members)
                if total > FREE + RATIO * size:
                    raise ValueError(f"it is {size} bytes and claims to hold {total}")
                arrays = {}
                for member in members:
                    with archive.open(member) as stream:
                        name = member.filename.removesuffix(".npy")
                        arrays[name] = _array(stream, member.file_size)
                return arrays
    except MemoryError:
        raise ValueError("there is not enough memory for it") from None
    except _DAMAGED as error:
        raise ValueError(str(error) or "it is damaged") from None


def _array(file: IO[bytes], size: int) -> Array:
    """Read the array in a file of ``size`` bytes."""
    version = npy.read_magic(file)
    if version not in _READERS:
        raise ValueError(f"version {version} of the format is not known")
    shape, in_columns, dtype = _READERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    if any(type(n) is not int or n < 0 for n in shape) or len(shape) > 32:
        raise ValueError(f"it says that its shape is {str(shape)[:80]}")
    wanted = math.prod(shape) * dtype.itemsize
    if math.prod(n or 1 for n in shape) * max(1, dtype.itemsize) >= 2**62 or wanted > size:
        raise ValueError(f"{size} bytes cannot hold an array of {str(shape)[:80]}")
    data = file.read(wanted)
    if len(data) != wanted:
        raise ValueError("it is cut off")
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if in_columns else "C")


def write(path: Path, named: Mapping[str, Array]) -> None:
    """Write an archive of arrays; the same arrays give the same bytes.

    Raises ValueError for an array of Python objects, which are not pickled, and OSError.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in named.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy.write_array(stream, np.asarray(array), allow_pickle=False)
