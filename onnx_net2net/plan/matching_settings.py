"""Settings with which the author's class has the names and shapes of a grown network.

    changes = config_changes(small.config, grown)         # {"n_embd": 96, "n_head": 6, ...}
    large = GPT2LMHeadModel(GPT2Config.from_dict(small.config.to_dict() | changes))
    large.load_state_dict(n2n.state_dict(grown))

What a setting does is found by trial: the class is built, without weights, with each one larger.
Lengths become as large as no weight is too many; widths grow as the axes do that they move. Where
shapes leave several readings, such as more heads or larger ones, the class's own graph decides.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_net2net.algebra.axes import Axis, Product, Sum, canonical
from onnx_net2net.algebra.sizes import trial
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.frameworks.state_dict import named_weights
from onnx_net2net.frameworks.transfer import few
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.plan.checkpoints import changed_settings, checkpoint_files, settled_in
from onnx_net2net.plan.settings import counts_heads, is_size
from onnx_net2net.verification.verify import verify
from onnx_net2net.widening.dimensions import analyse

if TYPE_CHECKING:
    from onnx_net2net.frameworks.torch.checkpoint import Checkpoint

__all__ = ["config_changes"]

_TRIED = 200  # readings that are built
_EXPORTED = 4  # readings whose graphs are compared
_UNSET = 8  # what a setting that is None is tried with

Sizes = Mapping[tuple[str, int], int]  # by name and axis of a weight
Place = tuple[str, int]  # a setting, and which number of it where it is a list
Number = int | None


def config_changes(config: Any, grown: AnyModel) -> dict[str, Any]:
    """Return the settings that make the author's class as large as ``grown``: {name: new value}.

    ``config`` is that of the smaller network: an object of transformers, a dict, or the path of a
    ``config.json`` or of its folder. ``grown`` was grown from its export by :func:`from_torch`. The
    class, built with these settings besides the others, loads ``state_dict(grown)``, strictly where
    the network reads all that the class has, and computes the same: epsilons of norms are among
    them. A setting of an inner configuration has a dotted name, as for :func:`grow_checkpoint`.

    Raises Refused where no settings say what ``grown`` is, or the class would compute something
    else; UsageError for what is no configuration of transformers.
    """
    model = load(grown)
    label = Path(config if isinstance(config, str | os.PathLike) else "the configuration")
    source = checkpoint_files().described(_read(config), model, label)
    refusals: list[Refused] = []
    for reading in islice(_Readings(source, model).likeliest(), _EXPORTED):
        try:
            larger, settled = settled_in(reading, model)
        except Refused as refusal:
            refusals.append(refusal)
            continue
        for scale in settled.scales:
            reason = f"its class derives another factor, for which {few(scale.weights)} make up"
            remedy = "grow the number of heads, not their size; or use n2n.transfer or "
            raise Refused(scale.path, reason, f"{remedy}n2n.grow_checkpoint, which scale them")
        _verify(model, larger.model, settled.model)
        return {name: new for name, (_, new) in changed_settings(source, larger).items()}
    raise refusals[0]


def _read(config: Any) -> dict[str, Any]:
    """Return the settings of a configuration, and how its object computes attention."""
    if isinstance(config, str | os.PathLike):
        path = Path(config)
        file = path / "config.json" if path.is_dir() else path
        settings: dict[str, Any] = checkpoint_files().read_settings(file)
        return settings
    if isinstance(config, Mapping):
        return dict(config)
    if not callable(getattr(config, "to_dict", None)):
        kind = type(config).__name__
        raise UsageError(f"a {kind} is no configuration", "give module.config, its dict or a file")
    way = getattr(config, "_attn_implementation", None)
    known: dict[str, Any] = config.to_dict()
    return known | ({"attn_implementation": way} if way in ("eager", "sdpa") else {})


def _verify(grown: Model, larger: Model, settled: Model) -> None:
    """Raise Refused where the class with the grown weights computes something else, if there are
    weights: its own graph is compared, without the epsilons that it should have.
    """
    absent = [name for name, weight in larger.weights.items() if not weight.given]
    weights = {name: settled.weights[name] for name in absent}
    if all(weight.given for weight in (*weights.values(), *grown.weights.values())):
        report = verify(grown, larger.with_changes(larger.editable(), weights), by_position=True)
        if not report:
            reason = f"the class does not compute the same: {report.verdict}"
            raise Refused(None, reason, "this is a defect: please report it with both")


class _Readings:
    """What the settings of ``source`` may be for its class to have the weights of ``grown``.

    Weights of a kind that the network does not read are left out.
    """

    def __init__(self, source: Checkpoint, grown: Model) -> None:
        self.source, self.grown = source, grown
        weights = named_weights(grown)
        self.kinds = set(map(_kind, weights))
        self.wanted = _sizes(weights)
        self.before = self._sizes(source)
        self.settings = dict(_whole_settings(source.settings))
        self.numbers: dict[Place, Number] = {
            (name, at): number
            for name, value in self.settings.items()
            for at, number in enumerate(value if isinstance(value, list) else [value])
        }

    def likeliest(self) -> Iterator[Checkpoint]:
        """Yield checkpoints of the wanted names and shapes. Raises Refused where there is none."""
        lengths, widths = self._candidates()
        nearest: tuple[Checkpoint, Sizes] | None = None
        for values in islice(product(*widths.values()), _TRIED):
            try:
                larger = self._with({**lengths, **dict(zip(widths, values, strict=True))})
                sizes = self._sizes(larger)
            except (UsageError, Refused):
                continue
            if sizes == self.wanted:
                yield larger
            if nearest is None or sizes == self.wanted:
                nearest = larger, sizes
        larger, sizes = nearest or (self.source, self.before)
        if sizes != self.wanted:
            raise self._misfit(larger, sizes)

    def _candidates(self) -> tuple[dict[Place, int], dict[Place, list[Number]]]:
        """Return the lengths, and what every width may be, the likeliest first."""
        lengths: dict[Place, int] = {}
        widths: dict[Place, list[Number]] = {}
        for place, old in self.numbers.items():
            more = _UNSET if old is None else 2 * old
            try:
                sizes = self._sizes(self._with({place: more}))
            except (UsageError, Refused):
                continue
            moved = {site for site, size in sizes.items() if self.before.get(site) != size}
            if old is None:
                widths[place] = [None, *self._scaled(more, sizes, moved)]
            elif sizes.keys() > self.before.keys():
                lengths[place] = self._longest(place, old)
            elif counts_heads(place[0]):
                new = self._scaled(old, self.before, self.before)
                widths[place] = sorted(new, key=lambda n: (n not in self._factors, n == old))
            elif moved:
                widths[place] = [*dict.fromkeys([*self._scaled(old, self.before, moved), old])]
        return lengths, widths

    def _scaled(self, number: int, sizes: Sizes, sites: Iterable[tuple[str, int]]) -> list[Number]:
        """Return a number times what some sizes grow by, the most frequent first."""
        known = (site for site in sites if site in self.wanted and sizes.get(site))
        ratios = Counter(Fraction(self.wanted[site], sizes[site]) for site in known)
        scaled = (number * ratio for ratio, _ in ratios.most_common())
        return [int(new) for new in scaled if new.denominator == 1]

    def _longest(self, place: Place, old: int) -> int:
        """Return the largest number with which the class has no weight that is not wanted."""

        def fits(number: int) -> bool:
            return self._sizes(self._with({place: number})).keys() <= self.wanted.keys()

        low, step = old, 1
        while step < len(self.wanted) and fits(low + step):
            low, step = low + step, 2 * step
        while step > 1:
            step //= 2
            low += step if fits(low + step) else 0
        return low

    @cached_property
    def _factors(self) -> set[int]:
        """The sizes of what axes of weights consist of: heads, their size, or several factors."""
        axes = analyse(self.grown).solution.axes
        several = (axes.get(name, ()) for name in self.grown.weights)
        return {size for weight in several for axis in weight for size in _factors(axis)}

    def _with(self, numbers: Mapping[Place, Number]) -> Checkpoint:
        """Return the source with other numbers."""
        changes = {
            name: [numbers.get((name, at), n) for at, n in enumerate(old)]
            if isinstance(old, list)
            else numbers.get((name, 0), old)
            for name, old in self.settings.items()
        }
        changed = {name: new for name, new in changes.items() if new != self.settings[name]}
        return self.source.with_settings(changed) if changed else self.source

    def _sizes(self, checkpoint: Checkpoint) -> Sizes:
        """Return the sizes of what is of a kind that the network reads."""
        state = checkpoint.module.state_dict()
        return _sizes({name: state[name] for name in state if _kind(name) in self.kinds})

    def _misfit(self, nearest: Checkpoint, sizes: Sizes) -> Refused:
        """Return what keeps the nearest settings from being those of the grown network."""
        sites = sizes.keys() | self.wanted.keys()
        wrong = {name for name, at in sites if sizes.get((name, at)) != self.wanted.get((name, at))}
        changes = changed_settings(self.source, nearest).items()
        told = ", ".join(f"{name}={new}" for name, (_, new) in changes) or "those given"
        return Refused(
            few(sorted(wrong)),
            f"no settings give it the shape that it has; the nearest that were tried are {told}",
            "grow all blocks alike, as in names=['h.*.mlp'], into a shape that the class can have; "
            "or n2n.to_torch, which writes code for every shape",
        )


def _whole_settings(settings: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings that are whole numbers, lists of these, or not set, inner ones dotted."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and "model_type" in value:
            yield from _whole_settings(value, f"{within}{name}.")
        elif value is None or is_size(name, value):
            yield within + name, value


def _sizes(tensors: Mapping[str, Any]) -> dict[tuple[str, int], int]:
    """Return the sizes of the axes of weights or tensors."""
    return {(name, at): n for name, t in tensors.items() for at, n in enumerate(t.shape)}


def _kind(name: str) -> str:
    """Return the name of a weight, alike in all layers."""
    return re.sub(r"\d+", "#", name)


def _factors(axis: Axis) -> Iterator[int]:
    """Yield the sizes of an axis's segments and factors, and of consecutive factors as one."""
    axis = canonical(axis)
    for segment in axis.segments if isinstance(axis, Sum) else [axis]:
        factors = segment.factors if isinstance(segment, Product) else (segment,)
        sizes = [int(trial(factor.size)) for factor in factors]
        for start in range(len(sizes)):
            yield from (prod(sizes[start:end]) for end in range(start + 1, len(sizes) + 1))
