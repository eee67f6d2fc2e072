"""onnx's shape inference, the only place that asks it: what may end the process runs in another.

found = infer_shapes(proto, value)      # the graph with what was inferred, or None
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError
from onnx.shape_inference import infer_shapes as _infer_shapes

from onnx_net2net.files.isolation import Failed, Isolated
from onnx_net2net.files.oddities import odd_graph

__all__ = ["infer_shapes"]

ERRORS = (InferenceError, ValidationError, RuntimeError, ValueError, TypeError)
_MEMORY = 1 << 30  # bytes; skeletons are small
_SECONDS = 10.0
_elsewhere = Isolated(__name__, _MEMORY)


def infer_shapes(
    proto: ModelProto,
    value: Callable[[str], np.ndarray[Any, Any] | None],
    *,
    isolated: bool = False,
) -> GraphProto | None:
    """The graph of ``proto`` with inferred shapes; None where it is refused, or not survived.

    ``value`` gives small constants by name: the absurd is looked for there, and what is absurd, or
    ``isolated``, is computed elsewhere.
    """
    try:
        if not isolated and odd_graph(proto.graph, value) is None:
            return _infer_shapes(proto, data_prop=True).graph
        contents = _elsewhere.call("infer", _SECONDS, contents=proto.SerializeToString())
        return ModelProto.FromString(contents).graph
    except (Failed, *ERRORS):
        return None


def _infer(contents: bytes) -> bytes:
    return _infer_shapes(ModelProto.FromString(contents), data_prop=True).SerializeToString()


CALLS = {"infer": _infer}
