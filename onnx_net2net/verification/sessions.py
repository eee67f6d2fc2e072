"""Sessions that give outputs by name, and what is known of a provider.

>>> session = Session(model.to_bytes(), choose_provider("cpu"), optimised=False)
>>> session.run({"x": np.zeros((1, 3), np.float32)})["y"].shape
(1, 10)
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import TensorProto, helper

from onnx_net2net.errors import UsageError
from onnx_net2net.model.isolation import Isolated
from onnx_net2net.model.schemas import schema_of
from onnx_net2net.verification.engine import (
    CPU,
    ERRORS,
    Source,
    Value,
    lacks_kernel,
    open_engine,
)
from onnx_net2net.verification.kernels import Kernels
from onnx_net2net.verification.trials import Outputs, RunError, first_line, flattened

__all__ = [
    "ERRORS", "FAILURES", "Session", "choose_provider", "kernels", "lacks",
]  # fmt: skip

FAILURES: tuple[type[Exception], ...] = (*ERRORS, RunError)


def choose_provider(name: str | None) -> str:
    """Return onnxruntime's name of a provider; UsageError if it does not work here.

    >>> choose_provider("cpu")
    'CPUExecutionProvider'
    """
    available: list[str] = ort.get_available_providers()
    if name is None:
        cuda = "CUDAExecutionProvider"
        return cuda if cuda in available and _works(cuda) else CPU
    wanted = name.lower().removesuffix("executionprovider")
    for candidate in available:
        if candidate.lower().removesuffix("executionprovider") == wanted:
            if _works(candidate):
                return candidate
            raise UsageError(
                f"onnxruntime has {candidate}, but it does not work on this machine",
                "check driver and libraries, or use --provider cpu",
            )
    raise UsageError(f"onnxruntime has no provider {name!r}", f"it has: {', '.join(available)}")


@functools.cache
def _works(provider: str) -> bool:
    """Return whether a session really runs there: onnxruntime falls back to the CPU in silence."""
    if provider == CPU:
        return True
    text = '<ir_version: 8, opset_import: ["": 13]> probe (float[1] x) => (float[1] y) {y = Neg(x)}'
    model = onnx.parser.parse_model(text)
    ort.set_default_logger_severity(4)  # a missing driver is an answer here, not an error
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            if provider.startswith("CUDA") and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()
        session = Session(model.SerializeToString(), provider, optimised=True)
        session.run({"x": np.ones(1, np.float32)})
        return session.provider == provider
    except FAILURES:
        return False
    finally:
        ort.set_default_logger_severity(2)


class Session:
    """A session that gives its outputs by name: ``run(feeds)``."""

    def __init__(
        self,
        source: Source,
        provider: str,
        *,
        optimised: bool,
        process: Isolated | None = None,
        lean: bool = False,
        without: Sequence[str] = (),
    ) -> None:
        self._engine = open_engine(
            source, provider, optimised=optimised, process=process, lean=lean, without=without
        )
        self.provider = self._engine.provider
        self.inputs = self._engine.inputs

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        names: Sequence[str] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> Outputs:
        """Compute all outputs or those asked for, by their names or the ``aliases`` of these."""
        wanted = list(names) if names is not None else self._engine.outputs
        used = {
            # A model lowered from bfloat16 is still fed what its inputs were.
            name: value.astype(np.float32) if value.dtype == ml_dtypes.bfloat16 else value
            for name, value in feeds.items()
            if name in self.inputs
        }
        try:
            values = self._engine.run(wanted, used)
        except ERRORS as error:
            raise RunError(first_line(error)) from error
        flat: Outputs = {}
        for name, value in zip(wanted, values, strict=True):
            flat.update(flattened((aliases or {}).get(name, name), value))
        return flat

    def run_values(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """Compute all outputs as onnxruntime has them, to be fed to another session."""
        try:
            values = self._engine.run_values(self._engine.outputs, feeds)
        except ERRORS as error:
            raise RunError(first_line(error)) from error
        return dict(zip(self._engine.outputs, values, strict=True))


# Kernels ---------------------------------------------------------------------------------------


@functools.cache
def kernels(provider: str) -> Kernels:
    """Return the errors of a provider's kernels, measured as they are asked for."""

    def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray | None:
        try:
            return Session(model.SerializeToString(), provider, optimised=False).run({"x": x})["y"]
        except FAILURES:
            return None

    return Kernels(run)


def lacks(elem_type: int, node: onnx.NodeProto, opsets: Mapping[str, int], provider: str) -> bool:
    """Return whether the provider has no kernel in a float type; the node by itself shows it."""
    schema = schema_of(node, opsets)
    if schema is None or any(a.g.node for a in node.attribute):
        return False
    given = [bool(name) for name in node.input], [bool(name) for name in node.output]
    alone = onnx.NodeProto(op_type=node.op_type, domain=schema.domain)
    alone.attribute.extend(node.attribute)
    graph = onnx.GraphProto(name="probe")
    for index, used in enumerate(given[0]):
        alone.input.append(f"x{index}" if used else "")
        types = schema.inputs[min(index, len(schema.inputs) - 1)].types
        name = f"tensor({TensorProto.DataType.Name(elem_type).lower()})"
        if name not in types:
            name = next((t for t in sorted(types) if t.startswith("tensor(")), "tensor(float)")
        kind = TensorProto.DataType.Value(name[len("tensor(") : -1].upper())
        if used:
            graph.input.append(helper.make_tensor_value_info(f"x{index}", kind, None))
    for index, used in enumerate(given[1]):
        alone.output.append(f"y{index}" if used else "")
        if used:
            graph.output.append(onnx.ValueInfoProto(name=f"y{index}"))
    graph.node.append(alone)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return _not_implemented(model.SerializeToString(deterministic=True), provider)


@functools.lru_cache(maxsize=4096)
def _not_implemented(model: bytes, provider: str) -> bool:
    try:
        Session(model, provider, optimised=False)
    except ERRORS as error:
        return lacks_kernel(error)
    return False
