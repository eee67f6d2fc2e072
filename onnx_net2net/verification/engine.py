"""onnxruntime itself: its sessions, those of ordinary models here, of hazardous ones elsewhere.

    engine = open_engine(model.to_bytes(), "CPUExecutionProvider", optimised=False)
    engine.run(["y"], {"x": np.zeros((1, 3), np.float32)})

A kernel that divides by a size of 0, or makes a terabyte, would end this process: a model in which
that may be runs in another (:func:`process_of`), one session after the other.

``ONNX_NET2NET_THREADS`` or ``OMP_NUM_THREADS`` set the number of threads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, TypeAlias

import ml_dtypes  # noqa: F401  (its types are among the arrays that are handed over)
import numpy as np
import onnxruntime as ort
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from onnx_net2net.model.hazards import graph_hazard, sized_by_inputs, unwritten_input
from onnx_net2net.model.isolation import Died, Failed, Isolated
from onnx_net2net.model.model import Model
from onnx_net2net.model.native import absurd_inside
from onnx_net2net.model.weights import raw_size
from onnx_net2net.verification.contents import Contents

__all__ = [
    "CPU", "ERRORS", "VERSION", "Engine", "Value", "array_of", "hazard", "lacks_kernel",
    "open_engine", "process_of", "value_of",
]  # fmt: skip

Value: TypeAlias = ort.OrtValue  # a tensor or a sequence, of any type
Source: TypeAlias = str | bytes | Contents  # a file, a message, or one without its big weights

VERSION = ort.__version__
CPU = "CPUExecutionProvider"
# What onnxruntime raises: classes of its own, and Python's for arguments it cannot convert.
ERRORS: tuple[type[Exception], ...] = (
    *(v for v in vars(ort_state).values() if isinstance(v, type) and issubclass(v, Exception)),
    RuntimeError,
    ValueError,
)
MEMORY = 2 << 30  # bytes for a hazardous model, beside what its weights take
SECONDS = 20.0
_numbers = count()  # of sessions elsewhere


def hazard(model: Model) -> str | None:
    """Return why a model had better run elsewhere, or None."""
    graph = model.proto.graph
    return (
        graph_hazard(graph, model.small)
        or unwritten_input(graph)
        or sized_by_inputs(graph)
        or absurd_inside(model.proto)
    )


def process_of(model: Model) -> Isolated | None:
    """Return a process for the sessions of a hazardous model, None for other models."""
    if hazard(model) is None:
        return None
    size = model.proto.ByteSize() + sum(weight.nbytes for weight in model.weights.values())
    return Isolated(__name__, MEMORY + 8 * size)


def lacks_kernel(error: Exception) -> bool:
    """Return whether onnxruntime raised ``error`` because it has no kernel for a sound model."""
    return isinstance(error, ort_state.NotImplemented) or "NOT_IMPLEMENTED" in str(error)


class Engine:
    """A session in this process: ``inputs`` with their types, ``outputs``, ``provider``."""

    def __init__(self, source: Source, provider: str, optimised: bool, lean: bool) -> None:
        # The session may look at these for as long as it lives.
        weights = source.weights if isinstance(source, Contents) else {}
        self._weights = {name: value_of(array) for name, array in weights.items()}
        message = source.message if isinstance(source, Contents) else source
        self._session = _session(message, provider, optimised, lean, self._weights)
        self.provider: str = self._session.get_providers()[0]
        self.inputs = {value.name: value.type for value in self._session.get_inputs()}
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[Any]:
        """Compute some outputs. Raises :data:`ERRORS`."""
        return list(self._session.run(list(names), dict(feeds)))

    def run_values(self, names: Sequence[str], feeds: Mapping[str, Value]) -> list[Value]:
        """Compute some outputs as :meth:`run` does, of types that NumPy lacks as well."""
        return list(self._session.run_with_ort_values(list(names), dict(feeds)))


def value_of(array: np.ndarray) -> Value:
    """Return an array as onnxruntime has it, in the same memory if that is contiguous."""
    array = np.ascontiguousarray(array).reshape(array.shape)  # which makes a vector of a number
    if array.dtype.isbuiltin == 1:  # the types of ml_dtypes are not
        return Value.ortvalue_from_numpy(array)
    elem_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    bits = array.view(f"u{array.dtype.itemsize}")
    return Value.ortvalue_from_numpy_with_onnx_type(bits, elem_type)


def array_of(value: Value) -> np.ndarray | None:
    """Return a copy of a tensor, bfloat16 and float8 as ``ml_dtypes``; None for other values.

    Those are sequences, texts, elements that share bytes, and what NumPy lacks on another device.
    """
    if not value.is_tensor() or value.data_type() == "tensor(string)":
        return None
    dtype = helper.tensor_dtype_to_np_dtype(value.element_type())
    if dtype.isbuiltin == 1:
        return np.array(value.numpy())
    shared = raw_size(value.element_type(), (2,)) != 2 * dtype.itemsize
    if shared or value.device_name() != "cpu":
        return None
    size = value.tensor_size_in_bytes()
    held = (ctypes.c_char * size).from_address(value.data_ptr()) if size else b""
    return np.frombuffer(held, dtype).reshape(value.shape()).copy()


class _Elsewhere(Engine):
    """The same in another process, until the next session is opened there."""

    def __init__(
        self, process: Isolated, source: Source, provider: str, optimised: bool, lean: bool
    ) -> None:
        self._process, self._number = process, next(_numbers)
        self.provider, self.inputs, self.outputs = process.call(
            "open", SECONDS, number=self._number, source=source, provider=provider,
            optimised=optimised, lean=lean,
        )  # fmt: skip
        self._died: str | None = None

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[Any]:
        if self._died:
            raise Failed(self._died)
        try:
            values: list[Any] = self._process.call(
                "run", SECONDS, number=self._number, names=list(names), feeds=dict(feeds)
            )
        except Died as error:  # and would so again
            self._died = str(error)
            raise
        return values


def open_engine(
    source: Source,
    provider: str,
    *,
    optimised: bool,
    process: Isolated | None = None,
    lean: bool = False,
) -> Engine:
    """Open a session of a model file, or of its contents. Raises :data:`ERRORS`.

    A ``process`` ends the session that was opened there before. A ``lean`` session takes
    less memory, and longer for each run.
    """
    if process is None:
        return Engine(source, provider, optimised, lean)
    return _Elsewhere(process, source, provider, optimised, lean)


def _session(
    source: str | bytes,
    provider: str,
    optimised: bool,
    lean: bool,
    weights: Mapping[str, Value],
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if lean:
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
    if weights:
        options.add_external_initializers(list(weights), list(weights.values()))
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    threads = os.environ.get("ONNX_NET2NET_THREADS") or os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        options.intra_op_num_threads = int(threads)
    # TF32 keeps 10 bits of the mantissa, which would hide most differences.
    settings = {"use_tf32": "0"} if provider.startswith("CUDA") else {}
    providers = [(provider, settings), (CPU, {})]
    return ort.InferenceSession(source, options, providers=providers[: 1 + (provider != CPU)])


# In the process of a hazardous model: the session that was opened last, by its number.
_last: dict[int, Engine] = {}


def _open(
    number: int, source: Source, provider: str, optimised: bool, lean: bool
) -> tuple[str, dict[str, str], list[str]]:
    _last.clear()
    engine = _last[number] = Engine(source, provider, optimised, lean)
    return engine.provider, engine.inputs, engine.outputs


def _run(number: int, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[Any]:
    return _last[number].run(names, feeds)


CALLS = {"open": _open, "run": _run}
