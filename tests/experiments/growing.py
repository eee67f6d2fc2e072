"""How the entrants begin: grown by this program, by other methods, or from nothing.

Each is given an Origin, which holds the trained teacher, and returns a Start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from data import Data
from torch import nn
from training import Start

import onnx_net2net as n2n

Build = partial[nn.Module]
Grow = Callable[["Origin", n2n.Model], n2n.Model]


def label(call: Any) -> str:
    """Return a function and its arguments as text: ``GPT-32-4``."""
    if not isinstance(call, partial):
        return getattr(call, "__name__", str(call))
    return "-".join(map(label, (call.func, *call.args, *call.keywords.values())))


@dataclass(frozen=True)
class Origin:
    """What a entrant may begin from: a teacher, its optimizer's state, and a seed.

    ``exports`` is the folder of networks as this program sees them, each exported once.
    """

    data: Data
    seed: int
    exports: Path
    model: n2n.Model | None = None
    state: Mapping[str, Any] | None = None

    def fresh(self, build: Build) -> nn.Module:
        """Return a network with random weights, of this seed."""
        torch.manual_seed(1000 + self.seed)
        return build()

    def exported(self, build: Build) -> n2n.Model:
        """Return a network, of any weights, as this program sees it."""
        path = self.exports / f"{label(build)}.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            n2n.from_torch(build(), self.data.example).save(path, force=True)
        return n2n.load(path)

    def start(self, model: n2n.Model, *, with_state: bool = True) -> Start:
        """Return the start of a grown model, with the optimizer's state grown along."""
        state = partial(self.grown_state, model) if with_state and self.state else None
        return Start(n2n.to_torch(model), model, training_flops(model, self.data), state)

    def grown_state(self, model: n2n.Model, into: torch.optim.Optimizer) -> Mapping[str, Any]:
        """Return the state of the teacher's optimizer for a model that may have grown from it."""
        steps = model.history[len(self.model.history) :]
        return n2n.grow_optimizer(self.state, steps, into=into) if steps else self.state


def training_flops(model: n2n.Model, data: Data, learned: float = 1.0) -> float:
    """Return the operations of one step: forward, and twice as many backward.

    Half of those backward are gradients of weights, of which only a share may be ``learned``.
    """
    sizes = {name: data.sizes[name] for name in n2n.costs(model).sizes}
    return n2n.costs(model, sizes=sizes).flops * (2 + learned)


def scratch(origin: Origin, build: Build) -> Start:
    """Begin with random weights."""
    model = origin.exported(build)
    return Start(origin.fresh(build), model, training_flops(model, origin.data))


def scratch_like(origin: Origin, small: Build, grow: Grow) -> Start:
    """Begin with random weights in the network that the small one grows into."""
    start = origin.start(grow(origin, origin.exported(small)))
    torch.manual_seed(1000 + origin.seed)
    return with_random(start, "")


def with_random(start: Start, *prefixes: str) -> Start:
    """Draw the weights of the modules anew whose names begin so; statistics, too."""
    for name, module in start.module.named_modules():
        if name.startswith(prefixes) and hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return start


def grown(origin: Origin, grow: Grow, *, with_state: bool = True) -> Start:
    """Begin as the teacher, grown."""
    return origin.start(grow(origin, origin.model), with_state=with_state)


def widen(origin: Origin, model: n2n.Model, build: Build, **options: Any) -> n2n.Model:
    """Widen to the larger network; ``options`` are those of :func:`onnx_net2net.widen`."""
    there = {d.name: d.width for d in n2n.inspect(origin.exported(build))}
    widths = {d.name: there[d.name] for d in n2n.inspect(model) if there[d.name] > d.width}
    return n2n.widen(model, widths, **{"seed": origin.seed} | options)


def widened(origin: Origin, build: Build, *, with_state: bool = True, **options: Any) -> Start:
    """Begin as the teacher, widened to the larger network."""
    return grown(origin, partial(widen, build=build, **options), with_state=with_state)


def shaped(origin: Origin, build: Build) -> Start:
    """Begin as the teacher, grown to the shape of the larger network."""
    return origin.start(n2n.grow(origin.model, like=origin.exported(build), seed=origin.seed))


def padded(origin: Origin, build: Build) -> Start:
    """Begin as the teacher amid random weights: Net2Net's baseline, which computes something else.

    In a network with fresh units exactly the weights that read them are zero.
    """
    start = widened(origin, build, split="fresh")
    random = origin.fresh(build).state_dict()
    with torch.no_grad():
        for name, parameter in start.module.named_parameters():
            parameter.copy_(torch.where(parameter == 0, random[name], parameter))
    return start


def stacked(origin: Origin, build: Build) -> Start:
    """Begin with the teacher's blocks one stack above the other: G_stack (Du et al., 2024)."""
    start = scratch(origin, build)
    weights = n2n.state_dict(origin.model)
    blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("h."))
    start.module.load_state_dict(
        {
            name: weights[re.sub(r"^h\.(\d+)", lambda m: f"h.{int(m[1]) % blocks}", name)]
            for name in start.module.state_dict()
        }
    )
    return start


def only_new(origin: Origin, grown: n2n.Model) -> Start:
    """Begin as the grown model, of which only what is new is trained: LLaMA-Pro."""
    new = [name for change in grown.changes for name in change.parameters]
    start = origin.start(grown, with_state=False)
    start.trained = new
    sizes = {name: p.numel() for name, p in start.module.named_parameters()}
    learned = sum(sizes[name] for name in new) / sum(sizes.values())
    start.flops = training_flops(grown, origin.data, learned)
    return start
