"""Growing a checkpoint folder of transformers: settings in, a folder out that its class loads.

    grown = grow_checkpoint("gpt2/", "larger/", settings={"n_embd": 1024, "n_head": 16})
    grown.settings      # {"n_embd": (768, 1024), "layer_norm_epsilon": (1e-05, 7.5e-06), ...}

The larger configuration says every width and length; its class's own graph says which numbers it
derives from them. Weights stay in the folder's files until the result is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from math import isclose
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onnx_net2net.errors import OutputError, Refused, UsageError
from onnx_net2net.model.atomic_write import place
from onnx_net2net.model.model import Model, Weight
from onnx_net2net.model.shards import file_size
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.plan.grow import Grown, by_shape
from onnx_net2net.plan.settle import NormEpsilon, Settled, settle
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.verify import verify as judge

if TYPE_CHECKING:
    from onnx_net2net.frameworks.torch.checkpoint import Checkpoint

__all__ = [
    "GrownCheckpoint", "changed_settings", "checkpoint_files", "grow_checkpoint",
    "open_checkpoint", "plan_checkpoint", "settled_in",
]  # fmt: skip

Setting = tuple[Any, Any]  # before and after


@dataclass(frozen=True)
class GrownCheckpoint:
    """A larger checkpoint that computes what ``source`` does: ``weights`` by their keys in files.

    ``settings`` are those that changed, {name: (before, after)}, epsilons of norms among them.
    ``unread`` are parameters that the compared output does not read, which are copied as they are.
    """

    source: Checkpoint
    larger: Checkpoint
    grown: Grown
    settled: Settled
    weights: Mapping[str, Weight]
    settings: Mapping[str, Setting]
    unread: list[str]
    report: Report | None = None


def grow_checkpoint(
    folder: str | os.PathLike[str] | Checkpoint,
    output: str | os.PathLike[str] | None,
    *,
    settings: Mapping[str, Any],
    seed: int = 0,
    force: bool = False,
    verify: bool = True,
    shards: str | int = "5GB",
) -> GrownCheckpoint:
    """Grow the network in a folder that ``save_pretrained`` wrote, and write it to ``output``.

    ``settings`` are those of the larger network's configuration, such as ``{"n_layer": 24}``.
    ``AutoModel*.from_pretrained(output)`` loads the result, which computes the same: epsilons are
    written into its configuration, tokenizer and generation settings are copied, and the type of
    the weights is kept. Files of weights are no larger than ``shards``, but where a single tensor
    is. Nothing is written where ``output`` is None. With ``verify`` ONNX Runtime compares both
    networks.

    Raises Refused where the class would not compute the same, naming every obstacle, and
    UsageError for settings that make no sense; then nothing is written.
    """
    limit = file_size(shards)
    source = open_checkpoint(folder) if isinstance(folder, str | os.PathLike) else folder
    target = None if output is None else Path(output)
    if target is not None:
        _check_target(target, source.folder, force)
    result = plan_checkpoint(source, settings, seed=seed)
    if verify:
        report = verified(result)
        result = replace(result, report=report)
        if not report:
            raise Refused(
                None,
                f"the larger network does not compute the same: {report.verdict}",
                "this is a defect: please report it with the configuration",
            )
    if target is None:
        return result
    from onnx_net2net.frameworks.torch.checkpoint import write_checkpoint

    def write(draft: Path) -> None:
        write_checkpoint(result.larger, result.weights, draft, limit)
        _check_left(draft, target)

    place(target, write=write, force=force)
    return result


def open_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Return the checkpoint in a folder. Raise UsageError where it is none."""
    checkpoint: Checkpoint = checkpoint_files().read_checkpoint(Path(folder))
    return checkpoint


def checkpoint_files() -> ModuleType:
    """Return the module that reads and writes them. Raise UsageError where PyTorch is missing."""
    try:
        import_module("transformers")
        return import_module("onnx_net2net.frameworks.torch.checkpoint")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a checkpoint of transformers needs {error.name}, which is not installed",
            "pip install 'onnx-net2net[torch]' transformers",
        ) from None


def _check_target(target: Path, source: Path, force: bool) -> None:
    """Raise OutputError unless a folder may be written, before any work is done."""
    place, origin = target.resolve(), source.resolve()
    if place == origin:
        raise OutputError(f"{target}: is the source itself", "choose another folder")
    if place.is_relative_to(origin) or (target.exists() and origin.is_relative_to(place)):
        problem = f"{target}: one of this folder and the source lies in the other"
        raise OutputError(problem, "choose another folder")
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file", "give the name of a folder")
    if target.exists() and not force:
        raise OutputError(f"{target}: exists", "choose another folder, or overwrite it (force)")
    if not place.parent.is_dir():
        raise OutputError(f"{target}: {place.parent} is no folder", "create it or choose another")


def _check_left(draft: Path, target: Path) -> None:
    """Raise OutputError where older weights or adapters would stay beside the new ones."""
    from onnx_net2net.frameworks.torch.checkpoint import ADAPTER, INDEX

    there = {path.name for path in target.iterdir()} if target.is_dir() else set()
    there -= {path.name for path in draft.iterdir()}
    left = [n for n in there if n.endswith(".safetensors") or n in (ADAPTER, INDEX)]
    if left:
        names = ", ".join(sorted(left)[:4])
        problem = f"{target}: holds {names}, which would stay beside the new weights"
        raise OutputError(problem, "choose another folder, or remove them")


def plan_checkpoint(
    source: Checkpoint, settings: Mapping[str, Any], *, seed: int = 0
) -> GrownCheckpoint:
    """Return the larger checkpoint that :func:`grow_checkpoint` writes, its weights unread."""
    larger = source.with_settings(settings)
    grown = by_shape(source.model, larger.model, {}, seed=seed)
    larger, settled = settled_in(larger, grown.model)
    weights, unread = _weights(source, larger, settled.model)
    changed = changed_settings(source, larger)
    return GrownCheckpoint(source, larger, grown, settled, weights, changed, unread)


def settled_in(larger: Checkpoint, grown: Model) -> tuple[Checkpoint, Settled]:
    """Return a checkpoint with the epsilons that ``grown`` needs there, and its network with the
    grown weights. Raise Refused where it would compute something else.
    """
    settled = settle(grown, larger.model, _absent(larger.model))
    if settled.epsilons:
        try:
            changed = larger.with_settings(_epsilon_settings(larger, settled.epsilons))
            settled = settle(grown, changed.model, _absent(changed.model))
            _check_served(settled.epsilons)
            larger = changed
        except Refused:  # no setting serves, but weights may make up for it
            settled = settle(grown, larger.model, _absent(larger.model), keep_epsilons=True)
            if settled.epsilons:
                raise
    return larger, settled


def _absent(model: Model) -> set[str]:
    return {name for name, weight in model.weights.items() if not weight.given}


def _epsilon_settings(larger: Checkpoint, epsilons: Sequence[NormEpsilon]) -> dict[str, float]:
    """Return the settings of the configuration that hold these epsilons, with their new values.

    Raises Refused where none holds one, or norms of one setting need different epsilons.
    """
    known = dict(_numbers(larger.config.to_dict()))
    changes: dict[str, float] = {}
    for epsilon in epsilons:
        names = [n for n, value in known.items() if isclose(value, epsilon.old, rel_tol=1e-5)]
        if not names:
            raise Refused(
                epsilon.path,
                f"its epsilon must become {epsilon.new:.7g} from {epsilon.old:.7g}, and no setting "
                "of the configuration holds it",
                "grow by a multiple of the hidden size, which keeps epsilons",
            )
        for name in names:
            if not isclose(changes.setdefault(name, epsilon.new), epsilon.new, rel_tol=1e-6):
                raise _unserved([epsilon])
    return changes


def _numbers(settings: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    """Yield the epsilons in a configuration, those of inner configurations by dotted names."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{within}{name}.")
        elif isinstance(value, float) and "eps" in name:
            yield within + name, value


def _check_served(left: Sequence[NormEpsilon]) -> None:
    if left:
        raise _unserved(left)


def _unserved(epsilons: Sequence[NormEpsilon]) -> Refused:
    paths = ", ".join(epsilon.path for epsilon in epsilons[:4])
    return Refused(
        paths,
        "one epsilon of the configuration cannot serve all norms: some need another one",
        "grow by a multiple of the hidden size, which keeps epsilons",
    )


def _weights(
    source: Checkpoint, larger: Checkpoint, settled: Model
) -> tuple[dict[str, Weight], list[str]]:
    """Return what the larger folder holds, by key, and the names of parameters that nobody read.

    Raises Refused for what nobody can tell.

    A tied weight is written as often as in the smaller folder. What the network does not read, and
    what has the same shape in both, is copied.
    """
    from onnx_net2net.frameworks.names import ties
    from onnx_net2net.frameworks.torch.checkpoint import key_of

    owners = ties(settled)
    weights: dict[str, Weight] = {}
    unknown: list[str] = []
    unread: list[str] = []
    for name, tensor in larger.module.state_dict().items():
        key, alike = key_of(name, source.keys)
        owner = owners.get(name, name)
        if owner in settled.weights and settled.weights[owner].given:
            if owner == name or key in source.weights:
                weights[key] = settled.weights[owner]
        elif alike is not None and source.weights[alike].shape == tuple(tensor.shape):
            weights[key] = source.weights[alike]
            unread += [name] if weights[key].dtype in FLOATS else []
        elif alike is not None:
            unknown.append(name)
    if unknown:
        reason = "the network does not read it, so that nobody can say how it would grow"
        raise Refused(", ".join(unknown[:4]), reason, "save the folder without it")
    return weights, unread


def changed_settings(before: Checkpoint, after: Checkpoint) -> dict[str, Setting]:
    """Return the settings that differ: {name: (before, after)}."""
    return dict(_changed(before.settings, after.settings))


def _changed(
    before: Mapping[str, Any], after: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, Setting]]:
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from _changed(old, value, f"{within}{name}.")
        elif value != old:
            yield within + name, (old, value)


def verified(grown: GrownCheckpoint) -> Report:
    """Compare both networks by ONNX Runtime, each as its class computes it."""
    larger = replace(grown.larger, weights=grown.weights)
    return judge(grown.source.model, larger.model, by_position=True)
