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

from onnx_net2net._version import __version__ as __version__

if TYPE_CHECKING:
    from onnx_net2net.analysis.folding import fold as fold
    from onnx_net2net.deepening.blocks import blocks as blocks
    from onnx_net2net.deepening.deepen import deepen as deepen
    from onnx_net2net.deepening.segments import Block as Block
    from onnx_net2net.errors import InvalidModel as InvalidModel
    from onnx_net2net.errors import Net2NetError as Net2NetError
    from onnx_net2net.errors import OutputError as OutputError
    from onnx_net2net.errors import Refused as Refused
    from onnx_net2net.errors import UsageError as UsageError
    from onnx_net2net.frameworks.absorb import absorb as absorb
    from onnx_net2net.frameworks.keras import save_keras as save_keras
    from onnx_net2net.frameworks.keras import to_keras as to_keras
    from onnx_net2net.frameworks.keras.exporter import from_keras as from_keras
    from onnx_net2net.frameworks.optimizer import grow_optimizer as grow_optimizer
    from onnx_net2net.frameworks.state_dict import save_safetensors as save_safetensors
    from onnx_net2net.frameworks.state_dict import state_dict as state_dict
    from onnx_net2net.frameworks.torch import to_torch as to_torch
    from onnx_net2net.frameworks.torch import write_package as write_package
    from onnx_net2net.frameworks.torch.exporter import from_torch as from_torch
    from onnx_net2net.model.model import Model as Model
    from onnx_net2net.model.model import load as load
    from onnx_net2net.plan.checkpoints import grow_checkpoint as grow_checkpoint
    from onnx_net2net.plan.costs import Costs as Costs
    from onnx_net2net.plan.costs import costs as costs
    from onnx_net2net.plan.diff import diff as diff
    from onnx_net2net.plan.grow import grow as grow
    from onnx_net2net.plan.matching_settings import config_changes as config_changes
    from onnx_net2net.plan.steps import replay as replay
    from onnx_net2net.plan.transfer import transfer as transfer
    from onnx_net2net.verification.assertion import assert_equivalent as assert_equivalent
    from onnx_net2net.verification.report import Report as Report
    from onnx_net2net.verification.verify import verify as verify
    from onnx_net2net.widening.dimensions import Dimension as Dimension
    from onnx_net2net.widening.dimensions import inspect as inspect
    from onnx_net2net.widening.request import Change as Change
    from onnx_net2net.widening.widen import widen as widen

_HOMES = {
    "Block": "deepening.segments",
    "Change": "widening.request",
    "Costs": "plan.costs",
    "Dimension": "widening.dimensions",
    "InvalidModel": "errors",
    "Model": "model.model",
    "Net2NetError": "errors",
    "OutputError": "errors",
    "Refused": "errors",
    "Report": "verification.report",
    "UsageError": "errors",
    "absorb": "frameworks.absorb",
    "assert_equivalent": "verification.assertion",
    "blocks": "deepening.blocks",
    "config_changes": "plan.matching_settings",
    "costs": "plan.costs",
    "deepen": "deepening.deepen",
    "diff": "plan.diff",
    "fold": "analysis.folding",
    "from_keras": "frameworks.keras.exporter",
    "from_torch": "frameworks.torch.exporter",
    "grow": "plan.grow",
    "grow_checkpoint": "plan.checkpoints",
    "grow_optimizer": "frameworks.optimizer",
    "inspect": "widening.dimensions",
    "load": "model.model",
    "replay": "plan.steps",
    "save_keras": "frameworks.keras",
    "save_safetensors": "frameworks.state_dict",
    "state_dict": "frameworks.state_dict",
    "to_keras": "frameworks.keras",
    "to_torch": "frameworks.torch",
    "transfer": "plan.transfer",
    "verify": "verification.verify",
    "widen": "widening.widen",
    "write_package": "frameworks.torch",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605
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
    """Return the module of a public name. Raise UsageError where its extra is not installed."""
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
