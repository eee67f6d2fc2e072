"""Growing a module into a larger one of its class, in place.

    report = transfer(small, large, (images,), optimizer=optimizer, large_optimizer=larger)

The larger module says every width and every number of blocks; see like.py. Its own graph has to
compute what the smaller one does, so that numbers which a class derives from sizes are compared,
and set or compensated where they differ.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_net2net.deepening.deepen import Copies
from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks.lineage import Lineage
from onnx_net2net.frameworks.transfer import GrownState, Transferred, few
from onnx_net2net.model.model import Model
from onnx_net2net.plan.like import difference
from onnx_net2net.plan.settle import settle
from onnx_net2net.plan.steps import follow
from onnx_net2net.widening.growth_record import Along, WeightGrowth
from onnx_net2net.widening.request import Change

if TYPE_CHECKING:
    from onnx_net2net.frameworks.keras.transfer import Pair as KerasPair
    from onnx_net2net.frameworks.torch.transfer import Pair

__all__ = ["transfer"]


def transfer(
    small: Any,
    large: Any,
    example_inputs: Any = None,
    *,
    optimizer: Any = None,
    large_optimizer: Any = None,
    dynamic: Any = None,
    seed: int = 0,
) -> Transferred:
    """Write the module or Keras model ``small``, grown, into ``large``, a larger one of its class.

    Both then compute the same. Parameters, statistics and persistent buffers are written in place,
    in the type and on the device of ``large``; ties stay. Epsilons are set on the modules of norms
    that need others, and in ``large.config`` where one number there is that of all norms; no
    checkpoint holds others. ``example_inputs`` and ``dynamic`` are those of :func:`from_torch`.

    ``large_optimizer``, of the same kind as ``optimizer``, gets its state, grown along, in its own
    groups; new parameters begin without state.

    Keras models need no ``example_inputs``: they say what they take. Layers that Keras numbered
    (``dense_2``) correspond in their order. The optimizers that both are compiled with are taken,
    if there are such; their rates stay. :meth:`keras.Model.save` holds what is set on layers. Both
    must have as many layers. A vector of LayerNormalization grows by multiples, and heads of
    MultiHeadAttention by number, not in size.

    Modules in DistributedDataParallel, or sharded by ``fully_shard``, are taken as they are; every
    process must call this. The first one gathers both, whole, on its CPU, and transfers there with
    its own examples; then each takes its part, and of the optimizer's state.

    Before anything is written, all is known to fit; then both modules are compared on the examples,
    in inference mode and, so far as they are not random there, in training mode. Where they
    differ, ``large`` gets its old weights back. Raises UsageError for what makes no sense, Refused,
    with all obstacles, where ``small`` cannot grow into ``large`` or would not compute the same.
    """
    # Accelerate and Lightning wrap an optimizer, which is their attribute of this name.
    optimizers = (getattr(o, "optimizer", o) for o in (optimizer, large_optimizer))
    arguments = small, large, example_inputs, *optimizers
    distributed = sys.modules.get("torch.distributed")  # who shards a module has imported it
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        from onnx_net2net.frameworks.torch.distributed import shared, transfer_together

        if shared(small, large):
            return transfer_together(_transfer, *arguments, dynamic=dynamic, seed=seed)
    return _transfer(*arguments, dynamic=dynamic, seed=seed)


def _transfer(
    small: Any,
    large: Any,
    example_inputs: Any,
    optimizer: Any,
    large_optimizer: Any,
    *,
    dynamic: Any,
    seed: int,
) -> Transferred:
    """Do what :func:`transfer` says, in this process alone."""
    if (optimizer is None) != (large_optimizer is None):
        raise UsageError("one optimizer alone", "give both, optimizer and large_optimizer")
    optimizers = () if optimizer is None else (optimizer, large_optimizer)
    pair = _pair(small, large, example_inputs, dynamic, optimizers)
    grown = follow(pair.small_model, difference(pair.small_model, pair.large_model, seed)).model
    fitted = pair.fit(_settled(grown, pair))
    if optimizer is None:
        optimizer, large_optimizer = pair.optimizers()
    if optimizer is not None:
        fitted.move_optimizer(optimizer, large_optimizer)
    report = fitted.report()
    report.optimizer = optimizer is not None
    report.widths = [(c.dimension, c.old, c.new) for c in grown.changes if isinstance(c, Change)]
    report.copies = [(c.block, c.copies) for c in grown.changes if isinstance(c, Copies)]
    with fitted.written(large_optimizer):
        fitted.check(report)
    return report


def _settled(grown: Model, pair: Pair | KerasPair) -> GrownState:
    """Put the grown weights into the larger module's network. Raises Refused if it is another."""
    settled = settle(grown, pair.large_model, pair.stored())
    scaled = {
        name: WeightGrowth([_scaling(axis, factor) for axis, factor in factors])
        for name, factors in settled.factors.items()
    }
    lineage = Lineage(grown.history[len(pair.small_model.history) :], scaled)
    epsilons = [(e.path, e.old, e.new) for e in settled.epsilons]
    notes = dict.fromkeys(
        f"{few(scale.weights)} make up for {scale.large:.6g} in place of {scale.grown:.6g} "
        f"in {scale.path}"
        for scale in settled.scales
    )
    return GrownState(settled.model, lineage, epsilons, [*notes])


def _scaling(axis: int, factor: np.ndarray) -> Along:
    """Return a scale of weights as a growth: their gradient is divided by it."""
    size = len(factor)
    return Along(axis, np.arange(size), "writes", 1 / factor, size)


def _pair(
    small: Any, large: Any, example_inputs: Any, dynamic: Any, optimizers: Sequence[Any]
) -> Pair | KerasPair:
    """Export both. Raises UsageError for what are no two modules, or no two Keras models."""
    if all(callable(getattr(module, "named_modules", None)) for module in (small, large)):
        if example_inputs is None:
            raise UsageError("there are no example inputs", "give what the modules are called with")
        from onnx_net2net.frameworks.torch.transfer import Pair

        return Pair(small, large, example_inputs, dynamic, optimizers)
    keras = sys.modules.get("keras")  # who has a model has imported it
    if keras is not None and all(isinstance(model, keras.Model) for model in (small, large)):
        from onnx_net2net.frameworks.keras.transfer import Pair as KerasPair

        return KerasPair(small, large, example_inputs, optimizers)
    for module in (small, large):
        is_keras = keras is not None and isinstance(module, keras.Model)
        if not is_keras and not callable(getattr(module, "named_modules", None)):
            kind = type(module).__name__
            raise UsageError(
                f"a {kind} is no PyTorch module, nor a Keras model", "give two of one kind"
            )
    raise UsageError("one is a PyTorch module, one a Keras model", "give two of one kind")
