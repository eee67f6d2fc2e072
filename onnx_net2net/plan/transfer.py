"""Growing a module into a larger one of its class, in place.

    report = transfer(small, large, (images,), optimizer=optimizer, large_optimizer=larger)

The larger module says every width and every number of blocks; see like.py. Its own graph has to
compute what the smaller one does, so that numbers which a class derives from sizes are compared,
and set or compensated where they differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_net2net.deepening.deepen import Copies
from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks.lineage import Lineage
from onnx_net2net.frameworks.state_dict import stored
from onnx_net2net.frameworks.transfer import Transferred, few
from onnx_net2net.model.model import Model
from onnx_net2net.plan.like import difference
from onnx_net2net.plan.settle import settle
from onnx_net2net.plan.steps import follow
from onnx_net2net.widening.growth_record import Along, WeightGrowth
from onnx_net2net.widening.request import Change

if TYPE_CHECKING:
    from onnx_net2net.frameworks.torch.transfer import GrownState, Pair

__all__ = ["transfer"]


def transfer(
    small: Any,
    large: Any,
    example_inputs: Any,
    *,
    optimizer: Any = None,
    large_optimizer: Any = None,
    dynamic: Any = None,
    seed: int = 0,
) -> Transferred:
    """Write the PyTorch module ``small``, grown, into ``large``, a larger one of the same class.

    Both then compute the same. Parameters, statistics and persistent buffers are written in place,
    in the type and on the device of ``large``; ties stay. Epsilons are set on the modules of norms
    that need others, and in ``large.config`` where one number there is that of all norms; no
    checkpoint holds others. ``example_inputs`` and ``dynamic`` are those of :func:`from_torch`.

    ``large_optimizer``, of the same kind as ``optimizer``, gets its state, grown along, in its own
    groups; new parameters begin without state.

    Before anything is written, all is known to fit; then both modules are compared on the examples,
    in inference mode and, so far as they are not random there, in training mode. Where they
    differ, ``large`` gets its old weights back. Raises UsageError for what makes no sense, Refused,
    with all obstacles, where ``small`` cannot grow into ``large`` or would not compute the same.
    """
    if (optimizer is None) != (large_optimizer is None):
        raise UsageError("one optimizer alone", "give both, optimizer and large_optimizer")
    pair = _pair(small, large, example_inputs, dynamic)
    grown = follow(pair.small_model, difference(pair.small_model, pair.large_model, seed)).model
    fitted = pair.fit(_settled(grown, pair))
    if optimizer is not None:
        fitted.move_optimizer(optimizer, large_optimizer)
    report = fitted.report()
    report.widths = [(c.dimension, c.old, c.new) for c in grown.changes if isinstance(c, Change)]
    report.copies = [(c.block, c.copies) for c in grown.changes if isinstance(c, Copies)]
    with fitted.written(large_optimizer):
        fitted.check(report)
    return report


def _settled(grown: Model, pair: Pair) -> GrownState:
    """Put the grown weights into the larger module's network. Raises Refused if it is another."""
    from onnx_net2net.frameworks.torch.transfer import GrownState

    settled = settle(grown, pair.large_model, stored(pair.large_model))
    scaled = {
        name: WeightGrowth([_scaling(axis, factor) for axis, factor in factors])
        for name, factors in settled.factors.items()
    }
    lineage = Lineage(grown.history[len(pair.small_model.history) :], scaled)
    epsilons = [(e.path, e.old, e.new) for e in settled.epsilons]
    notes = [
        f"{few(scale.weights)} make up for {scale.large:.6g} in place of {scale.grown:.6g} "
        f"in {scale.path}"
        for scale in settled.scales
    ]
    return GrownState(settled.model, lineage, epsilons, notes)


def _scaling(axis: int, factor: np.ndarray) -> Along:
    """Return a scale of weights as a growth: their gradient is divided by it."""
    size = len(factor)
    return Along(axis, np.arange(size), "writes", 1 / factor, size)


def _pair(small: Any, large: Any, example_inputs: Any, dynamic: Any) -> Pair:
    """Export both modules. Raises UsageError for what is no module."""
    for module in (small, large):
        if not callable(getattr(module, "named_modules", None)):
            raise UsageError(
                f"a {type(module).__name__} is no PyTorch module", "give two nn.Module"
            )
    from onnx_net2net.frameworks.torch.transfer import Pair

    return Pair(small, large, example_inputs, dynamic)
