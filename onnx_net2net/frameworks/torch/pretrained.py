"""Classes of transformers without weights: built from settings, and called with what they read.

config = configuration({"model_type": "gpt2", "n_embd": 96, ...}, folder)
module = empty_module(config, folder, torch.float32)     # parameters on the meta device
model = exported(module, config)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.frameworks.torch.exporter import from_torch
from onnx_net2net.frameworks.torch.types import NAMES
from onnx_net2net.model.model import Model

__all__ = [
    "Interface", "check_self_contained", "class_of", "configuration", "empty_module", "example",
    "exported", "interface_of",
]  # fmt: skip

# Of ways to compute, those that PyTorch has: others are code that transformers downloads and runs.
OWN_WAYS = (None, "eager", "sdpa")


def check_self_contained(settings: Mapping[str, Any], folder: Path) -> None:
    """Raise UsageError for settings, inner ones too, that let transformers run code from elsewhere
    or download weights.
    """
    for name, value in settings.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Mapping):
                check_self_contained(inner, folder)
        if name == "auto_map" and value is not None:
            problem = f"{folder}: its class is code in the folder, which is not run"
        elif "_implementation" in name and _is_foreign(value):
            problem = f"{folder}: '{name}' lets transformers run code from elsewhere"
        elif name in ("use_kernels", "use_pretrained_backbone") and value:
            problem = f"{folder}: '{name}' lets transformers download more"
        else:
            continue
        raise UsageError(problem, "use n2n.transfer with modules that you have built yourself")


def _is_foreign(way: Any) -> bool:
    """Return whether a way to compute, or one of several by part, is none of PyTorch's."""
    ways = way.values() if isinstance(way, Mapping) else [way]
    return any(way not in OWN_WAYS for way in ways)


def configuration(settings: Mapping[str, Any], folder: Path) -> Any:
    """Return the configuration that transformers makes of ``settings``, of its own classes."""
    import transformers

    check_self_contained(settings, folder)
    kind = str(settings.get("model_type"))
    if kind not in transformers.CONFIG_MAPPING:
        problem = f"{folder}: transformers {transformers.__version__} has no model type '{kind}'"
        raise UsageError(problem, "config.json names it under 'model_type'")
    try:
        with _quiet():
            return transformers.CONFIG_MAPPING[kind].from_dict(dict(settings))
    except _raised() as error:
        problem = f"{folder}: transformers rejects the configuration: {_first_lines(error)}"
        raise UsageError(problem, "see config.json, and the settings given") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of transformers on settings that it has read for years."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _raised() -> tuple[type[Exception], ...]:
    """Return what classes of transformers raise for settings that do not go together."""
    from huggingface_hub.errors import StrictDataclassError

    return (
        ArithmeticError, AssertionError, AttributeError, ImportError, LookupError,
        NotImplementedError, RuntimeError, StrictDataclassError, TypeError, ValueError,
    )  # fmt: skip


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def empty_module(config: Any, folder: Path, dtype: torch.dtype) -> nn.Module:
    """Build the class that the configuration names, its parameters on the meta device."""
    import transformers

    names = config.architectures
    name = str(names[0]) if isinstance(names, list) and names else ""
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        problem = f"{folder}: transformers {transformers.__version__} has no class '{name}'"
        raise UsageError(problem, "config.json names it under 'architectures'")
    for part in (config, *(getattr(config, sub, None) for sub in config.sub_configs)):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    try:
        with _quiet(), _without_contents():
            module: nn.Module = kind._from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    except _raised() as error:
        problem = f"{folder}: {name} cannot be built so: {_first_lines(error)}"
        raise UsageError(problem, "see config.json, and the settings given") from error
    if next(module.parameters(), None) is None:
        problem = f"{folder}: {name} has no parameters"
        raise UsageError(problem, "config.json names the class under 'architectures'")
    return module.eval()


@contextmanager
def _without_contents() -> Iterator[None]:
    """Move each parameter to the meta device as it is registered; buffers keep their contents."""
    register = nn.Module.register_parameter

    def registered(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = registered  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


@dataclass(frozen=True)
class Interface:
    """What a network is called with, which axes of that may vary, how many results it has, and
    whether its dropout was exported.
    """

    inputs: Mapping[str, torch.Tensor]
    dynamic: Mapping[str, Mapping[int, Any]]
    outputs: int
    dropout: bool


def interface_of(model: Model) -> Interface:
    """Return the interface of an export: its inputs are named as the arguments of ``forward``."""
    inputs: dict[str, torch.Tensor] = {}
    dynamic: dict[str, dict[int, Any]] = {}
    sizes: dict[str, int] = {}  # of axes that vary, different ones by name, none of them 0 or 1
    for value in model.proto.graph.input:
        tensor = value.type.tensor_type
        axes = [
            dim.dim_value or sizes.setdefault(dim.dim_param, 2 + len(sizes))
            for dim in tensor.shape.dim
        ]
        dtype = getattr(torch, NAMES.get(tensor.elem_type, ""), None)
        if not isinstance(dtype, torch.dtype):
            raise Refused(
                value.name, "is no input of a PyTorch module", "export it with from_torch"
            )
        inputs[value.name] = torch.zeros(axes, dtype=dtype)
        vary = (axis for axis, dim in enumerate(tensor.shape.dim) if not dim.HasField("dim_value"))
        dynamic[value.name] = dict.fromkeys(vary, Dim.AUTO)
    dropout = any(node.op_type == "Dropout" for node in model.proto.graph.node)
    return Interface(inputs, dynamic, len(model.proto.graph.output), dropout)


def class_of(model: Model) -> str:
    """Return the name of the class of transformers that was exported, as far as nodes tell it."""
    import transformers

    for node in model.proto.graph.node:
        for entry in node.metadata_props:
            classes = re.match(r"\['([\w.]+)'", entry.value)
            if entry.key == "pkg.torch.onnx.class_hierarchy" and classes:
                name = classes[1].rpartition(".")[2]
                if hasattr(transformers, name):
                    return name
    return ""


def exported(module: nn.Module, config: Any, interface: Interface | None = None) -> Model:
    """Export a class without weights, by default as its main output reads its main input."""
    if interface is None:
        with _main_output(module):
            return from_torch(module, example(module, config), dropout=False, unread=False)
    with nullcontext() if interface.outputs > 1 else _main_output(module):
        inputs, dynamic = interface.inputs, interface.dynamic
        return from_torch(module, inputs, dynamic, dropout=interface.dropout, unread=False)


@contextmanager
def _main_output(module: nn.Module) -> Iterator[None]:
    """Let ``forward`` give what the class is for, and not the hidden states that it gives besides.

    These are as wide as the network, and would be an interface that cannot grow.
    """
    forward = module.forward

    @wraps(forward)
    def first(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        names = outputs.keys() if isinstance(outputs, Mapping) else ()
        return {"logits": outputs["logits"]} if "logits" in names else outputs[0]

    module.forward = first
    try:
        yield
    finally:
        del module.forward


def example(module: nn.Module, config: Any) -> dict[str, torch.Tensor]:
    """Return inputs of the kinds that the class says it reads, in sizes that its settings allow.

    Raises Refused for a class whose main input is of a kind that is not known here.
    """
    main = str(getattr(module, "main_input_name", "input_ids"))
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    tokens = torch.arange(2 * 6).reshape(2, 6) % getattr(text, "vocab_size", 2)
    sizes = getattr(config, "image_size", 224)
    height, width = (sizes, sizes) if isinstance(sizes, int) else tuple(sizes)
    known = {
        "input_ids": lambda: tokens,
        "pixel_values": lambda: torch.zeros(2, getattr(config, "num_channels", 3), height, width),
        "input_features": lambda: torch.zeros(
            2, config.num_mel_bins, 2 * config.max_source_positions
        ),
        "input_values": lambda: torch.zeros(2, 4000),
    }
    if main not in known:
        raise Refused(type(module).__name__, f"its input '{main}' is of no kind that is known",
                      "use n2n.transfer with modules and inputs of your own")  # fmt: skip
    inputs = {main: known[main]()}
    parameters = inspect.signature(module.forward).parameters
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in parameters:
        inputs["decoder_input_ids"] = tokens
    dtype = next(module.parameters()).dtype
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
