"""Checkpoint folders of transformers: a configuration, and weights in safetensors files.

    checkpoint = read_checkpoint(Path("gpt2"))
    checkpoint.model                              # its network; weights lie unread in the folder
    larger = checkpoint.with_settings({"n_embd": 96, "n_head": 6})
    larger.model                                  # the same class, larger; its weights are absent
    write_checkpoint(larger, weights, Path("larger"))

The class builds its network without weights, and PyTorch exports that; so a folder of any size
takes the memory of its graph only. Code that a folder brings along is never run.
"""

from __future__ import annotations

import difflib
import inspect
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import nn

from onnx_net2net.errors import InvalidModel, Refused, UsageError
from onnx_net2net.frameworks import safetensors_file
from onnx_net2net.frameworks.torch.exporter import from_torch
from onnx_net2net.model.model import Computed, Model, Weight

__all__ = ["Checkpoint", "example", "key_of", "read_checkpoint", "write_checkpoint"]

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SHARD = 5 * 10**9  # bytes; what transformers takes for one file
# What a folder holds besides: tokenizers, processors and generation settings.
COPIED = {".jinja", ".json", ".model", ".tiktoken", ".txt"}
# Of a training run, which the larger network has not had.
LEFT = {"trainer_state.json", "training_args.json"}


@dataclass(frozen=True)
class Checkpoint:
    """A network of transformers: the folder it comes from and the settings that it has now.

    ``weights`` are those of the folder by their keys there, none where ``settings`` are others.
    """

    folder: Path
    settings: Mapping[str, Any]  # config.json
    weights: Mapping[str, Weight]
    dtype: torch.dtype

    @cached_property
    def config(self) -> Any:
        """Return the configuration object that transformers makes of the settings."""
        return _config(self.settings, self.folder)

    @cached_property
    def module(self) -> nn.Module:
        """Return the class's network with all parameters on the meta device."""
        return _module(self.config, self.folder, self.dtype)

    @cached_property
    def keys(self) -> dict[str, str]:
        """Return the key in the folder's files of every name in the module's state dict."""
        return _keys(self.module, self.weights, self.folder)

    @cached_property
    def model(self) -> Model:
        """Return the network as a model with the folder's weights, or with absent ones."""
        with _main_output(self.module):
            empty = from_torch(self.module, example(self.module, self.config))
        if not self.weights:
            return empty
        owners = {name for name, weight in empty.weights.items() if not weight.given}
        missing = sorted(name for name in owners if name not in self.keys)
        if missing:
            raise InvalidModel(
                f"{self.folder}: its files lack {', '.join(missing[:8])}",
                "save the whole model with save_pretrained",
            )
        weights = {name: self.weights[self.keys[name]].renamed(name) for name in owners}
        for name, weight in weights.items():
            _check_fits(self.folder, name, weight, empty.weights[name])
        return empty.with_changes(empty.editable(), weights)

    def in_float32(self) -> Checkpoint:
        """Return the same network with its weights, and its graph, in float32."""
        if self.dtype == torch.float32:
            return self
        wide = {key: _wide(weight) for key, weight in self.weights.items()}
        return replace(self, weights=wide, dtype=torch.float32)

    def with_settings(self, changes: Mapping[str, Any]) -> Checkpoint:
        """Return the same class with other settings, such as ``{"n_layer": 24}``, without weights.

        A dotted name is one of an inner configuration (``text_config.hidden_size``). Raises
        UsageError for settings that the class does not have.
        """
        settings = json.loads(json.dumps(self.settings))
        for name, value in changes.items():
            part, config = settings, self.config
            *path, last = name.split(".")
            for step in path:
                part, config = part.setdefault(step, {}), getattr(config, step, None)
            part[_known(config, last, name)] = value
        settings = self._rederived(settings, changes)
        return replace(self, settings=settings, weights={})

    def _rederived(self, settings: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """Let the class derive anew what it had derived: the size of heads, the kinds of layers."""
        before = self.config.to_dict()
        stated = {_known(self.config, n, n) for n in changes if "." not in n}
        derived = []
        for name in self.settings.keys() - stated - {"architectures", "dtype", "model_type"}:
            without = {k: v for k, v in self.settings.items() if k != name}
            try:
                again = _config(without, self.folder).to_dict()
            except UsageError:
                continue
            if name in before and again.get(name) == before[name]:
                derived.append(name)
        rest = {name: value for name, value in settings.items() if name not in derived}
        after = _config(rest, self.folder).to_dict()
        return rest | {name: after.get(name, settings[name]) for name in derived}


def _known(config: Any, setting: str, name: str) -> str:
    """Return the name under which a configuration keeps a setting."""
    own = getattr(config, "attribute_map", {}).get(setting, setting)
    known = config.to_dict() if hasattr(config, "to_dict") else {}
    if own in known:
        return str(own)
    close = difflib.get_close_matches(setting, known, n=1)
    remedy = f"did you mean '{close[0]}'?" if close else f"settings are {', '.join(sorted(known))}"
    raise UsageError(f"the configuration has no setting '{name}'", remedy)


def _wide(weight: Weight) -> Weight:
    if weight.dtype not in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return weight
    shape = weight.shape
    return Computed(
        weight.name, TensorProto.FLOAT, shape, lambda: weight.array().astype(np.float32)
    )


def _check_fits(folder: Path, name: str, weight: Weight, wanted: Weight) -> None:
    if weight.shape != wanted.shape:
        problem = f"'{name}' is {weight.shape} in the files, {wanted.shape} in the class"
        raise InvalidModel(f"{folder}: {problem}", "config.json and weights do not belong together")
    if weight.dtype != wanted.dtype:
        problem = f"'{name}' has another type than most weights"
        raise InvalidModel(f"{folder}: {problem}", "save the model in one type: model.to(dtype)")


# ---- reading ------------------------------------------------------------------------------------


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder, its weights unread.

    Raises UsageError where it is none, or needs code of its own; InvalidModel where it is damaged.
    """
    settings = _json(folder / CONFIG, "a folder that save_pretrained has written")
    if "auto_map" in settings:
        problem = f"{folder}: its class is code in the folder, which is not run"
        raise UsageError(problem, "use n2n.transfer with modules that you have built yourself")
    weights = _weights(folder)
    if not weights:
        raise UsageError(
            f"{folder}: holds no .safetensors file",
            "load it and save it with save_pretrained(folder, safe_serialization=True)",
        )
    dtypes = [weight.dtype for weight in weights.values()]
    most = max(set(dtypes), key=dtypes.count)
    return Checkpoint(folder, settings, weights, _torch_dtype(folder, most))


def _json(path: Path, wanted: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", f"give {wanted}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", f"give {wanted}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidModel(f"{path}: is no JSON object", f"give {wanted}")
    return value


def _weights(folder: Path) -> dict[str, Weight]:
    """Return the tensors of all files, as the index says where there is one."""
    files = sorted(folder.glob("*.safetensors"))
    if (folder / INDEX).is_file():
        names = _json(folder / INDEX, "a whole folder").get("weight_map")
        names = set(names.values()) if isinstance(names, dict) else set()
        odd = [n for n in names if not isinstance(n, str) or Path(n).name != n]
        if odd or not names:
            raise InvalidModel(f"{folder / INDEX}: names no files of this folder", "save it again")
        files = [folder / name for name in sorted(names)]
    weights: dict[str, Weight] = {}
    for file in files:
        weights |= safetensors_file.read(file)
    return weights


def _torch_dtype(folder: Path, dtype: int) -> torch.dtype:
    name = safetensors_file.NAMES.get(dtype)
    known = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if name not in known:
        raise Refused(str(folder), f"its weights are {name}", "quantised weights cannot be shared")
    return known[name]


# ---- the class ----------------------------------------------------------------------------------


def _config(settings: Mapping[str, Any], folder: Path) -> Any:
    """Return the configuration that transformers makes of ``settings``, of its own classes."""
    import transformers

    kind = str(settings.get("model_type"))
    if kind not in transformers.CONFIG_MAPPING:
        problem = f"{folder}: transformers {transformers.__version__} has no model type '{kind}'"
        raise UsageError(problem, "config.json names it under 'model_type'")
    try:
        return transformers.CONFIG_MAPPING[kind].from_dict(dict(settings))
    except _raised() as error:
        problem = f"{folder}: transformers rejects the configuration: {_first_line(error)}"
        raise UsageError(problem, "see config.json, and the settings given") from error


def _raised() -> tuple[type[Exception], ...]:
    """Return what classes of transformers raise for settings that do not go together."""
    from huggingface_hub.errors import StrictDataclassError

    return (
        ArithmeticError, AssertionError, AttributeError, ImportError, LookupError,
        NotImplementedError, RuntimeError, StrictDataclassError, TypeError, ValueError,
    )  # fmt: skip


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _module(config: Any, folder: Path, dtype: torch.dtype) -> nn.Module:
    """Build the class that the configuration names, its parameters on the meta device."""
    import transformers

    name = next(iter(config.architectures or ()), "")
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        problem = f"{folder}: transformers {transformers.__version__} has no class '{name}'"
        raise UsageError(problem, "config.json names it under 'architectures'")
    for part in (config, *(getattr(config, sub, None) for sub in config.sub_configs)):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    try:
        with _without_contents():
            return kind._from_config(config, dtype=dtype).eval()
    except _raised() as error:
        problem = f"{folder}: {name} cannot be built so: {_first_line(error)}"
        raise UsageError(problem, "see config.json, and the settings given") from error


@contextmanager
def _without_contents() -> Iterator[None]:
    """Move each parameter to the meta device as it is registered; buffers keep their contents."""
    register = nn.Module.register_parameter

    def registered(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = registered  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


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


def _keys(module: nn.Module, weights: Mapping[str, Weight], folder: Path) -> dict[str, str]:
    """Match names of the state dict and keys of files as transformers does when it loads them.

    Raises Refused for keys of which transformers computes other tensors than those that are there.
    """
    state = module.state_dict(keep_vars=True)
    keys: dict[str, str] = {}
    fused = []
    for key in weights:
        name, converted = _renamed(module, key, state)
        if converted:
            fused.append(key)
        elif name in state:
            keys[name] = key
    if fused:
        reason = f"transformers puts {', '.join(fused[:4])} together with others when it loads them"
        raise Refused(str(folder), reason, "save it with save_pretrained of this transformers")
    owners = {id(state[name]): key for name, key in keys.items()}
    tied = {name: owners[id(tensor)] for name, tensor in state.items() if id(tensor) in owners}
    return tied | keys


def _renamed(module: nn.Module, key: str, state: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the name of a key in the state dict, and whether its tensor is computed from others.

    Releases of transformers before 5 know no renaming but that of the prefix.
    """
    prefix = str(getattr(module, "base_model_prefix", ""))
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key
    except ImportError:
        names = (key, f"{prefix}.{key}", key.removeprefix(f"{prefix}."))
        return next((name for name in names if name in state), key), False
    conversions = get_model_conversion_mapping(module)
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    renamings = [c for c in conversions if not isinstance(c, WeightConverter)]
    name, source = rename_source_key(key, renamings, converters, prefix, dict(state))
    return name, source is not None


def key_of(name: str, keys: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the key under which files hold a tensor, and that of its like in another layer.

    >>> key_of("model.h.7.w", {"model.h.0.w": "h.0.w"})
    ('h.7.w', 'h.0.w')
    """
    if name in keys:
        return keys[name], keys[name]
    for known, key in keys.items():
        new, old = name.split("."), known.split(".")
        if len(new) != len(old):
            continue
        parts = [(n, o) for n, o in zip(new, old, strict=True) if n != o]
        path = key.split(".")
        if len(parts) == 1 and all(map(str.isdigit, parts[0])) and path.count(parts[0][1]) == 1:
            return ".".join(parts[0][0] if part == parts[0][1] else part for part in path), key
    return name, None


# ---- writing ------------------------------------------------------------------------------------


def write_checkpoint(checkpoint: Checkpoint, weights: Mapping[str, Weight], folder: Path) -> None:
    """Write weights by their keys, the settings, and what else the checkpoint's folder holds."""
    folder.mkdir()
    for path in checkpoint.folder.iterdir():
        other = path.name not in (CONFIG, INDEX, *LEFT) and path.suffix in COPIED
        if other and path.is_file():
            shutil.copyfile(path, folder / path.name)
    text = json.dumps(checkpoint.settings, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    shards: list[dict[str, Weight]] = [{}]
    size = 0
    for key, weight in weights.items():
        if shards[-1] and size + weight.nbytes > SHARD:
            shards.append({})
            size = 0
        shards[-1][key] = weight
        size += weight.nbytes
    if len(shards) == 1:
        safetensors_file.write(folder / "model.safetensors", weights, force=False)
        return
    where = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors_file.write(folder / name, shard, force=False)
        where |= dict.fromkeys(shard, name)
    total = sum(weight.nbytes for weight in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
