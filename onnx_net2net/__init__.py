"""Make a trained ONNX network wider or deeper without changing what it computes.

    import onnx_net2net as n2n

    model = n2n.load("model.onnx")
    grown = n2n.widen(model, {"conv5": 512})
    assert n2n.verify(model, grown)
    grown.save("grown.onnx")

Importing this package imports none of onnx, onnxruntime, torch or tensorflow; each public name
is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_net2net.analysis.folding import fold as fold
    from onnx_net2net.depth.blocks import Block as Block
    from onnx_net2net.depth.blocks import blocks as blocks
    from onnx_net2net.depth.deepening import deepen as deepen
    from onnx_net2net.errors import InvalidModel as InvalidModel
    from onnx_net2net.errors import Net2NetError as Net2NetError
    from onnx_net2net.errors import OutputError as OutputError
    from onnx_net2net.errors import Refused as Refused
    from onnx_net2net.errors import UsageError as UsageError
    from onnx_net2net.frameworks.exchange import absorb as absorb
    from onnx_net2net.frameworks.from_keras import from_keras as from_keras
    from onnx_net2net.frameworks.from_torch import from_torch as from_torch
    from onnx_net2net.frameworks.keras3 import to_keras as to_keras
    from onnx_net2net.frameworks.optimizer import grow_optimizer as grow_optimizer
    from onnx_net2net.frameworks.pytorch import to_torch as to_torch
    from onnx_net2net.frameworks.pytorch import write_package as write_package
    from onnx_net2net.frameworks.state import save_safetensors as save_safetensors
    from onnx_net2net.frameworks.state import state_dict as state_dict
    from onnx_net2net.judge.verify import Report as Report
    from onnx_net2net.judge.verify import verify as verify
    from onnx_net2net.model import Model as Model
    from onnx_net2net.model import load as load
    from onnx_net2net.planning.costs import Costs as Costs
    from onnx_net2net.planning.costs import costs as costs
    from onnx_net2net.planning.growing import grow as grow
    from onnx_net2net.planning.lineage import diff as diff
    from onnx_net2net.planning.lineage import replay as replay
    from onnx_net2net.width.dimensions import Dimension as Dimension
    from onnx_net2net.width.dimensions import inspect as inspect
    from onnx_net2net.width.request import Change as Change
    from onnx_net2net.width.widening import widen as widen

__version__ = "0.1.0"

_HOMES = {
    "Block": "depth.blocks",
    "Change": "width.request",
    "Costs": "planning.costs",
    "Dimension": "width.dimensions",
    "InvalidModel": "errors",
    "Model": "model",
    "Net2NetError": "errors",
    "OutputError": "errors",
    "Refused": "errors",
    "Report": "judge.verify",
    "UsageError": "errors",
    "absorb": "frameworks.exchange",
    "blocks": "depth.blocks",
    "costs": "planning.costs",
    "deepen": "depth.deepening",
    "diff": "planning.lineage",
    "fold": "analysis.folding",
    "from_keras": "frameworks.from_keras",
    "from_torch": "frameworks.from_torch",
    "grow": "planning.growing",
    "grow_optimizer": "frameworks.optimizer",
    "inspect": "width.dimensions",
    "load": "model",
    "replay": "planning.lineage",
    "save_safetensors": "frameworks.state",
    "state_dict": "frameworks.state",
    "to_keras": "frameworks.keras3",
    "to_torch": "frameworks.pytorch",
    "verify": "judge.verify",
    "widen": "width.widening",
    "write_package": "frameworks.pytorch",
}
__all__ = sorted(_HOMES)
# Packages of the extras, for whoever asks for a framework that is not installed.
_EXTRAS = {
    "keras": "tensorflow",
    "onnx_ir": "torch",
    "onnxscript": "torch",
    "safetensors": "torch",
    "tensorflow": "tensorflow",
    "tf2onnx": "tensorflow",
    "torch": "torch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_home(name), name)
    globals()[name] = value
    return value


def _home(name: str) -> ModuleType:
    """The module of a public name; UsageError where it needs an extra that is not installed."""
    try:
        return import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        from onnx_net2net.errors import UsageError

        raise UsageError(
            f"{name} needs {package}, which is not installed",
            f"pip install 'onnx-net2net[{_EXTRAS[package]}]'",
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
