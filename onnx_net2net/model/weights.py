"""The contents of one tensor, read when asked for and not before.

    weight = model.weights["conv1.weight"]
    weight.shape, weight.nbytes        # known without reading
    weight.array()                     # read-only, read from the file by each call

:class:`Stored` lies raw in a file, :class:`Inline` lies in the parsed skeleton,
:class:`Computed` is the result of a function, called each time it is written or looked at, and of
an :class:`Absent` one only type and shape are known.
"""

from __future__ import annotations

import copy
import errno
import math
import os
import stat
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.errors import Net2NetError, UsageError
from onnx_net2net.model.finite import is_always_finite, is_finite
from onnx_net2net.model.reading import OpenFile
from onnx_net2net.model.wire import RAW_DATA

__all__ = [
    "Absent", "Computed", "Inline", "Source", "Stored", "Weight", "dtype_name", "is_possible",
    "raw_size",
]  # fmt: skip

CHUNK = 1 << 20  # bytes: Linux takes ten times as long for writes of 8 MB, on ext4
WORTH_SHARING = 64 << 10  # bytes: less is looked at in less time than a thread takes to begin
MOST_AXES = 64
_PACKED_BITS = {
    "UINT2": 2, "INT2": 2, "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6,
}  # fmt: skip


@cache
def dtype_name(dtype: int) -> str:
    """Return ``"FLOAT16"`` for 10; the number itself where onnx knows no such type."""
    known = dtype in TensorProto.DataType.values()
    return TensorProto.DataType.Name(dtype) if known else f"type {dtype}"


@cache
def element_bits(dtype: int) -> int | None:
    """Return the bits of an element in ``raw_data``, ``None`` for strings and unknown types."""
    name = dtype_name(dtype)
    if name in _PACKED_BITS:
        return _PACKED_BITS[name]
    if name in ("UNDEFINED", "STRING") or name.startswith("type "):
        return None
    return 8 * helper.tensor_dtype_to_np_dtype(dtype).itemsize


def raw_size(dtype: int, shape: tuple[int, ...]) -> int | None:
    """Return the bytes of ``raw_data`` for a tensor, int4 packed; ``None``: it cannot lie raw.

    >>> raw_size(TensorProto.INT4, (3, 3))
    5
    """
    bits = element_bits(dtype)
    return None if bits is None else -(-math.prod(shape) * bits // 8)


def is_possible(shape: Sequence[int]) -> bool:
    """Return whether NumPy can hold an array of this shape, even an empty one."""
    return len(shape) <= MOST_AXES and math.prod(size or 1 for size in shape) < 2**58


class Source:
    """The bytes of one file, read as they are asked for, or of one ``bytes`` object."""

    def __init__(self, path: Path | None, view: memoryview | OpenFile) -> None:
        self.path = path
        self.view = view

    @classmethod
    def open(cls, path: Path) -> Source:
        """Open a regular file. Raises ``OSError``."""
        # A pipe or a device would block or never end; stat before open, for open itself can block.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return cls(path, OpenFile(path))

    def chunks(self, start: int, end: int) -> Iterator[memoryview]:
        """Yield some bytes in pieces, each of which lasts until the next is asked for."""
        if isinstance(self.view, OpenFile):
            yield from self.view.chunks(start, end, CHUNK)
        else:
            for at in range(start, end, CHUNK):
                yield self.view[at : min(at + CHUNK, end)]

    @property
    def current(self) -> bool:
        """Whether its path leads to the very file that was opened, unchanged."""
        return isinstance(self.view, OpenFile) and self.view.current


@dataclass
class _Notes:
    """What was seen of a weight's contents when they were read."""

    finite: bool | None = None
    digest: bytes | None = None


class Weight(ABC):
    """One tensor's contents, not yet read."""

    def __init__(self, name: str, dtype: int, shape: tuple[int, ...]) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self._notes = _Notes()  # shared with those that are renamed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {dtype_name(self.dtype)}, {self.shape})"

    @property
    def given(self) -> bool:
        """Whether there are contents at all."""
        return True

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes as raw data; 0 for strings, which have none."""
        return raw_size(self.dtype, self.shape) or 0

    @abstractmethod
    def array(self) -> np.ndarray:
        """Return the contents, read-only; bfloat16, float8 and int4 as ``ml_dtypes``."""

    def payload(self) -> memoryview:
        """Return the contents as ``raw_data`` has them: little-endian, row-major, int4 packed."""
        array = self.array()
        if dtype_name(self.dtype) in _PACKED_BITS:
            return memoryview(numpy_helper.from_array(array).raw_data)
        array = np.ascontiguousarray(array)  # no copy where it already lies so
        if array.dtype.byteorder == (">" if sys.byteorder == "little" else "="):
            array = array.byteswap()
        return array.reshape(-1).view(np.uint8).data

    def chunks(self) -> Iterator[memoryview]:
        """Yield :meth:`payload` in pieces, each of which lasts until the next is asked for."""
        payload = self.payload()
        for start in range(0, len(payload), CHUNK):
            yield payload[start : start + CHUNK]

    def is_finite(self) -> bool:
        """Return whether no element is NaN or infinite, which is looked for once at most."""
        if element_bits(self.dtype) is None or is_always_finite(self._raw_dtype):
            return True
        if self._notes.finite is None:
            for _ in self.examined():
                pass
        return bool(self._notes.finite)

    @property
    def digest(self) -> bytes | None:
        """The SHA-256 of :meth:`payload` if it was computed before, else None."""
        return self._notes.digest

    def examined(
        self, hashed: bool = False, helper: Executor | None = None
    ) -> Iterator[memoryview]:
        """Yield :meth:`chunks`, and note what :meth:`is_finite` returns.

        With ``hashed`` note :attr:`digest`, too. Where there is a ``helper``, it looks at a chunk
        while the caller does.
        """
        finite, digest, dtype = True, sha256() if hashed else None, self._raw_dtype

        def look(chunk: memoryview) -> None:
            nonlocal finite
            finite = finite and is_finite(np.frombuffer(chunk, dtype, len(chunk) // dtype.itemsize))
            if digest is not None:
                digest.update(chunk)

        for chunk in self.chunks():
            looking = helper.submit(look, chunk) if helper and len(chunk) > WORTH_SHARING else None
            yield chunk
            look(chunk) if looking is None else looking.result()
        self._notes.finite = finite
        if digest is not None:
            self._notes.digest = digest.digest()

    @property
    def _raw_dtype(self) -> np.dtype[Any]:
        """The type of elements in ``raw_data``; bytes where several share one."""
        packed = dtype_name(self.dtype) in _PACKED_BITS
        stored = np.dtype(np.uint8) if packed else helper.tensor_dtype_to_np_dtype(self.dtype)
        return stored.newbyteorder("<")

    def renamed(self, name: str) -> Weight:
        """Return the same contents under another name."""
        twin = copy.copy(self)
        twin.name = name
        return twin


class Stored(Weight):
    """Contents that lie raw in a file, at ``offset``."""

    def __init__(
        self,
        name: str,
        dtype: int,
        shape: tuple[int, ...],
        *,
        source: Source,
        offset: int,
        field: int = RAW_DATA,
    ) -> None:
        super().__init__(name, dtype, shape)
        self.source = source
        self.offset = offset
        self.field = field

    def payload(self) -> memoryview:
        return self.source.view[self.offset : self.offset + self.nbytes]

    def chunks(self) -> Iterator[memoryview]:
        return self.source.chunks(self.offset, self.offset + self.nbytes)

    def array(self) -> np.ndarray:
        return _decoded(self.payload(), self.dtype, self.shape)


class Inline(Weight):
    """Contents that lie in the parsed skeleton: small, typed (``int64_data``), or a Constant's."""

    def __init__(self, name: str, tensor: TensorProto) -> None:
        super().__init__(name, tensor.data_type, tuple(tensor.dims))
        self.tensor = tensor

    def array(self) -> np.ndarray:
        if self.dtype == TensorProto.STRING:  # undecoded, for nothing says that they are UTF-8
            array = np.array(list(self.tensor.string_data), dtype=object).reshape(self.shape)
        else:
            array = numpy_helper.to_array(self.tensor)
        array.flags.writeable = False
        return array


class Computed(Weight):
    """Contents that ``fn()`` gives when they are written; nothing is kept.

    >>> Computed("bias", TensorProto.FLOAT, (2,), lambda: np.float32([1, 2])).array()
    array([1., 2.], dtype=float32)
    """

    def __init__(
        self, name: str, dtype: int, shape: tuple[int, ...], fn: Callable[[], np.ndarray]
    ) -> None:
        super().__init__(name, dtype, tuple(shape))
        self.fn = fn

    def array(self) -> np.ndarray:
        array = np.asarray(self.fn())
        wanted = helper.tensor_dtype_to_np_dtype(self.dtype)
        if array.shape != self.shape or array.dtype.newbyteorder("=") != wanted:
            raise Net2NetError(
                f"{self.name}: computed contents are {array.dtype} {array.shape}, "
                f"declared were {wanted} {self.shape}",
                "this is a defect of the program; please report it with the model",
            )
        array = array.view()
        array.flags.writeable = False
        return array


class Absent(Weight):
    """A weight of which type and shape are known only: that of a network yet to be filled."""

    @property
    def given(self) -> bool:
        return False

    def array(self) -> np.ndarray:
        raise UsageError(
            f"the contents of '{self.name}' are not given",
            "only names and shapes of such a model can be used: give it weights first",
        )


def _decoded(payload: memoryview, dtype: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return ``raw_data`` as an array, without a copy where elements are whole bytes."""
    if dtype_name(dtype) in _PACKED_BITS:
        tensor = TensorProto(dims=shape, data_type=dtype, raw_data=bytes(payload))
        array = numpy_helper.to_array(tensor)
        array.flags.writeable = False
        return array
    stored = helper.tensor_dtype_to_np_dtype(dtype).newbyteorder("<")
    return np.frombuffer(payload, dtype=stored).reshape(shape)
