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
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onnx_net2net.errors import InvalidModel, Refused, UsageError
from onnx_net2net.frameworks import safetensors_file
from onnx_net2net.frameworks.torch.pretrained import (
    Interface,
    check_self_contained,
    class_of,
    configuration,
    empty_module,
    exported,
    interface_of,
)
from onnx_net2net.model.external import contained
from onnx_net2net.model.model import Model, Weight
from onnx_net2net.model.shards import divided, shard_name
from onnx_net2net.operators.types import FLOATS

__all__ = [
    "Checkpoint", "described", "key_of", "read_checkpoint", "read_settings", "write_checkpoint",
]  # fmt: skip

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
SHARD = 5 * 10**9  # bytes; what transformers takes for one file
TIMES = 1_000  # what a setting may become, of the present
# What a folder holds besides: tokenizers, processors and generation settings.
COPIED = {".jinja", ".json", ".model", ".tiktoken", ".txt"}
# Of config.json, what is not of the network's sizes: its class, its code, the type of its weights.
FIXED = {
    "architectures", "auto_map", "dtype", "model_type", "quantization_config", "torch_dtype",
    "transformers_version", "transformers_weights",
}  # fmt: skip
# Settings that count what is built one by one; so few of these are built whatever the files hold.
_LENGTHS, _FEW = re.compile(r"(layers?|depths?|blocks)$"), 100
# Of a training run, which the larger network has not had.
LEFT = {"trainer_state.json", "training_args.json"}


@dataclass(frozen=True)
class Checkpoint:
    """A network of transformers: the folder it comes from and the settings that it has now.

    ``weights`` are those of the folder by their keys there, none where ``settings`` are others.
    ``interface`` is how the network is exported, where that is not up to its class.
    """

    folder: Path
    settings: Mapping[str, Any]  # config.json
    weights: Mapping[str, Weight]
    dtype: torch.dtype
    interface: Interface | None = None

    @cached_property
    def config(self) -> Any:
        """Return the configuration object that transformers makes of the settings."""
        return configuration(self.settings, self.folder)

    @cached_property
    def module(self) -> nn.Module:
        """Return the class's network with all parameters on the meta device."""
        return empty_module(self.config, self.folder, self.dtype)

    @cached_property
    def keys(self) -> dict[str, str]:
        """Return the key in the folder's files of every name in the module's state dict."""
        return _keys(self.module, self.weights, self.folder)

    @cached_property
    def model(self) -> Model:
        """Return the network as a model with the folder's weights, or with absent ones."""
        module = self.module  # errors in the settings name the folder
        if self.interface is None:
            empty = _exported(json.dumps(self.settings, sort_keys=True), self.dtype)
        else:
            empty = exported(module, self.config, self.interface)
        if not self.weights:
            return empty
        owners = [name for name, weight in empty.weights.items() if not weight.given]
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

    def with_settings(self, changes: Mapping[str, Any]) -> Checkpoint:
        """Return the same class with other settings, such as ``{"n_layer": 24}``, without weights.

        A dotted name is one of an inner configuration (``text_config.hidden_size``). Raises
        UsageError for settings that the class does not have.
        """
        settings = json.loads(json.dumps(self.settings))
        for name, value in changes.items():
            if name in FIXED:
                problem = f"'{name}' says what the network is, which growing keeps"
                raise UsageError(problem, "give sizes, such as hidden_size")
            part, config = settings, self.config
            *path, last = name.split(".")
            for step in path:
                part, config = part.setdefault(step, {}), getattr(config, step, None)
                if not isinstance(part, dict):
                    problem = f"'{step}' in '{name}' is no inner configuration"
                    raise UsageError(problem, f"give '{step}' itself")
            own = _known(config, last, name)
            old = getattr(config, own, None)
            if isinstance(value, int) and isinstance(old, int) and value > TIMES * max(old, 1):
                problem = f"'{name}' cannot become {value}: that is absurd for {old}"
                raise UsageError(problem, f"at most {TIMES} times")
            part[own] = value
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
                again = configuration(without, self.folder).to_dict()
            except UsageError:
                continue
            if name in before and again.get(name) == before[name]:
                derived.append(name)
        rest = {name: value for name, value in settings.items() if name not in derived}
        after = configuration(rest, self.folder).to_dict()
        derived_anew = {name: after.get(name, settings[name]) for name in derived}
        return rest | _as_in_a_file(derived_anew)


@lru_cache(maxsize=2)
def _exported(settings: str, dtype: torch.dtype) -> Model:
    """Export the class without weights: its settings say all that its graph depends on.

    What was grown into last is thus what the next growth begins with, its analysis included.
    """
    label = Path(CONFIG)
    config = configuration(json.loads(settings), label)
    return exported(empty_module(config, label, dtype), config)


def _known(config: Any, setting: str, name: str) -> str:
    """Return the name under which a configuration keeps a setting."""
    own = getattr(config, "attribute_map", {}).get(setting, setting)
    known = config.to_dict() if hasattr(config, "to_dict") else {}
    if own in known:
        return str(own)
    close = difflib.get_close_matches(setting, known, n=1)
    remedy = f"did you mean '{close[0]}'?" if close else f"settings are {', '.join(sorted(known))}"
    raise UsageError(f"the configuration has no setting '{name}'", remedy)


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
    _check_links(folder)
    settings = _json(folder / CONFIG, "a folder that save_pretrained has written")
    check_self_contained(settings, folder)
    for what, there in (
        ("an adapter", (folder / ADAPTER).exists()),
        ("quantised weights", settings.get("quantization_config") is not None),
        ("weights that config.json names", settings.get("transformers_weights") is not None),
    ):
        if there:
            problem = f"{folder}: has {what}, and so computes what {WEIGHTS} alone does not tell"
            raise UsageError(problem, "load it and save it as plain weights, in one type")
    weights = _weights(folder)
    if not weights:
        raise UsageError(
            f"{folder}: holds no {WEIGHTS}, nor several with an index",
            "load it and save it with save_pretrained(folder, safe_serialization=True)",
        )
    _check_lengths(folder, settings, len(weights))
    dtypes = [weight.dtype for weight in weights.values()]
    most = max(set(dtypes), key=dtypes.count)
    return Checkpoint(folder, settings, weights, _torch_dtype(folder, most))


def _check_links(folder: Path) -> None:
    """Raise InvalidModel for a link out of the folder: what is behind it would be copied, too."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink() and contained(folder / CONFIG, path.name) is None:
            problem = f"{path}: is a link to a file outside of the folder"
            raise InvalidModel(problem, "copy the file itself into the folder")


def _check_lengths(folder: Path, settings: Mapping[str, Any], tensors: int) -> None:
    """Raise InvalidModel for more layers than there are tensors: building them might never end."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            _check_lengths(folder, value, tensors)
        numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int)]
        most = max(numbers, default=0)
        if _LENGTHS.search(name) and most > max(tensors, _FEW):
            problem = f"{folder}: '{name}' is {most}, and its files hold {tensors} tensors"
            raise InvalidModel(problem, "config.json and weights do not belong together")


def read_settings(path: Path) -> dict[str, Any]:
    """Return what a ``config.json`` holds. Raise UsageError, InvalidModel where it is none."""
    return _json(path, "a config.json that save_pretrained has written")


def described(settings: Mapping[str, Any], model: Model, label: Path) -> Checkpoint:
    """Return the checkpoint that settings and an export of its class describe, without weights.

    ``label`` is what messages call it. The class is that of the export, where its nodes tell it.
    """
    settings = _as_in_a_file(settings)
    if name := class_of(model):
        settings["architectures"] = [name]
    dtypes = [w.dtype for w in model.weights.values() if w.dtype in FLOATS and w.size > 1]
    if not dtypes:
        raise UsageError("the model has no weights", "give one that was grown from an export")
    dtype = _torch_dtype(label, max(set(dtypes), key=dtypes.count))
    return Checkpoint(label, settings, {}, dtype, interface_of(model))


def _as_in_a_file(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as ``config.json`` has them: with words as keys, without tuples and types."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


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
    """Return the tensors of the files that transformers would load: one, or those of the index."""
    files = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []
    if not files and (folder / INDEX).is_file():
        names = _json(folder / INDEX, "a whole folder").get("weight_map")
        names = list(names.values()) if isinstance(names, dict) else []
        if not names or not all(map(_is_inside, names)):
            raise InvalidModel(f"{folder / INDEX}: names no files of this folder", "save it again")
        files = [folder / name for name in sorted(set(names))]
    weights: dict[str, Weight] = {}
    for file in files:
        weights |= safetensors_file.read(file)
    return weights


def _is_inside(name: Any) -> bool:
    """Return whether something is the name of a file of weights right in the folder."""
    return isinstance(name, str) and Path(name).name == name and name.isprintable()


def _torch_dtype(folder: Path, dtype: int) -> torch.dtype:
    name = safetensors_file.NAMES.get(dtype)
    known = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if name not in known:
        raise Refused(str(folder), f"its weights are {name}", "quantised weights cannot be shared")
    return known[name]


def _keys(module: nn.Module, weights: Mapping[str, Weight], folder: Path) -> dict[str, str]:
    """Match names of the state dict and keys of files as transformers does when it loads them.

    Raises Refused for keys of which transformers computes other tensors than those that are there.
    """
    state = module.state_dict(keep_vars=True)
    keys: dict[str, str] = {}
    fused: list[str] = []
    renamed = _renaming(module, state)
    for key in weights:
        name, converted = renamed(key)
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


def _renaming(module: nn.Module, state: Mapping[str, Any]) -> Callable[[str], tuple[str, bool]]:
    """Return what tells the name of a key in the state dict, and whether several make one tensor.

    Releases of transformers before 5 know no renaming but that of the prefix.
    """
    prefix = str(getattr(module, "base_model_prefix", ""))

    def prefixed(key: str) -> tuple[str, bool]:
        names = (key, f"{prefix}.{key}", key.removeprefix(f"{prefix}."))
        return next((name for name in names if name in state), key), False

    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key
    except ImportError:
        return prefixed
    rules: list[Any] = get_model_conversion_mapping(module)  # type: ignore[arg-type]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    renamings = [rule for rule in rules if not isinstance(rule, WeightConverter)]
    names = dict(state)

    def renamed(key: str) -> tuple[str, bool]:
        name, source = rename_source_key(key, renamings, converters, prefix, names)
        return name, source is not None

    return renamed


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
        apart = [at for at in range(-len(new), 0) if new[at] != old[at]]
        path = key.split(".")
        if len(apart) != 1 or not (at := apart[0]) >= -len(path) or path[at] != old[at]:
            continue
        if new[at].isdigit() and old[at].isdigit():
            path[at] = new[at]
            return ".".join(path), key
    return name, None


# ---- writing ------------------------------------------------------------------------------------


def write_checkpoint(
    checkpoint: Checkpoint, weights: Mapping[str, Weight], folder: Path, limit: int = SHARD
) -> None:
    """Write weights by their keys, the settings, and what else the checkpoint's folder holds.

    Files of weights have at most ``limit`` bytes of tensors, but where a single one has more.
    """
    files = divided(weights, limit, lambda weight: 1)
    folder.mkdir()
    for path in checkpoint.folder.iterdir():
        other = path.name not in (CONFIG, *LEFT) and not path.name.endswith(".index.json")
        if other and path.suffix in COPIED and path.is_file():
            shutil.copyfile(path, folder / path.name)
    text = json.dumps(checkpoint.settings, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    where: dict[str, str] = {}
    for number, keys in enumerate(files, 1):
        name = shard_name(WEIGHTS, number, len(files))
        safetensors_file.write(folder / name, {key: weights[key] for key in keys}, force=False)
        where |= dict.fromkeys(keys, name)
    if len(files) > 1:
        total = sum(weight.nbytes for weight in weights.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
