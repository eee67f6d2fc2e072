"""What a module drops at random while it trains, so that its export can keep it.

    drawn = draws(module, args, kwargs)
    with kept(module, drawn.ratios):        # dropout is exported as it trains
        ...
    drawn.lost                              # what else is random, by the path of the module

A module says only in training mode what it drops: in inference mode attention is called without
its ratio, and dropout may not be called at all. So the module is called in both modes, on tensors
without contents, and a call of dropout in the one is the call at the same place in the other.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.unkept import Drawn

__all__ = ["RAISED", "draws", "inference", "kept", "unchanged"]

Place = tuple[str, str]  # the path of a module, and the function that it calls
Ratios = Mapping[Place, list[float]]

# What a module's own code raises in training mode, where it may want labels, or on tensors
# without contents.
RAISED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip


def draws(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Drawn:
    """Return what ``module`` draws at random in training mode, and nothing of it in inference.

    The module and the generators of random numbers are left as they were.
    """
    training, inference = (_called(module, args, kwargs, training=mode) for mode in (True, False))
    training.unknown = training.unknown or inference.unknown
    if inference.unknown or inference.lost or any(map(any, inference.ratios.values())):
        inference.ratios = {}  # random itself, or unknown: nothing can be told from it
    for place, ratios in list(training.ratios.items()):
        fits = len(inference.ratios.get(place, ())) == len(ratios) and max(ratios) < 1
        if not fits or not any(ratios):
            del training.ratios[place]
            training.lost += [place[0]] if any(ratios) else []
    parts = {path: type(part).__name__ for path, part in module.named_modules()}
    lost = dict.fromkeys(training.lost)
    training.lost = [f"{path or 'the module itself'} ({parts[path]})" for path in lost]
    return training


def _called(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, training: bool
) -> Drawn:
    """Call ``module`` in one mode on tensors without contents."""
    drawn = Drawn()
    ratios: dict[Place, list[float]] = defaultdict(list)

    def record(place: Place, ratio: float) -> float:
        ratios[place].append(ratio)
        return 0.0

    tensors = [*module.parameters(), *module.buffers()]
    mode = detect_fake_mode((args, kwargs, tensors)) or FakeTensorMode(allow_non_fake_inputs=True)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stack.enter_context(unchanged(module))
        stack.enter_context(_modes(module, training=training))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_spelled_out())
        path = stack.enter_context(_diverted(module, record))
        stack.enter_context(mode)
        stack.enter_context(_Draws(lambda: drawn.lost.append(path[-1])))
        try:
            args, kwargs = tree_map_only(Tensor, mode.from_tensor, (args, dict(kwargs)))
            module(*args, **kwargs)
        except RAISED as error:
            first = next(iter(str(error).splitlines()), "")
            drawn.unknown = f"{type(error).__name__}: {first}"
    drawn.ratios = dict(ratios)
    return drawn


class _Draws(TorchDispatchMode):
    """Calls ``report`` for every operator that draws random numbers."""

    def __init__(self, report: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.report = report

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags and _ratio(func, args, kwargs) != 0.0:
            self.report()
            if isinstance(result, Tensor) and result.dim() == 0 and result.is_floating_point():
                # A number decides which layers are skipped: 1 skips none.
                return torch.tensor(1.0, dtype=result.dtype)
        return result


def _ratio(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> float | None:
    """Return the ratio that a kernel of attention is told, None for other operators."""
    names = [argument.name for argument in func._schema.arguments]
    stated = dict(zip(names, args, strict=False)) | dict(kwargs or {})
    return stated.get("dropout_p", 0.0) if "dropout_p" in names else None


@contextmanager
def _spelled_out() -> Iterator[None]:
    """Have PyTorch's attention take in both modes the way that an export takes."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Give each part its attributes and tensors back, whatever its code assigns."""
    states: list[dict[str, Any]] = [
        state
        for part in module.modules()
        for state in cast("tuple[Any, ...]", (vars(part), part._buffers, part._parameters))
    ]
    held = [(state, dict(state)) for state in states]
    try:
        yield
    finally:
        for state, before in held:
            state.clear()
            state.update(before)


@contextmanager
def _modes(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Put all parts into one mode, and each then back into its own.

    Batch norms stay in inference mode: they draw nothing, and may want more samples.
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.train(training)
        for part, _ in modes:
            part.training = part.training and not isinstance(part, _NormBase)
        yield
    finally:
        for part, before in modes:
            part.training = before


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Put all of ``module`` in inference mode, and each part then back in its own."""
    with _modes(module, training=False):
        yield


@contextmanager
def _diverted(module: nn.Module, choose: Callable[[Place, float], float]) -> Iterator[list[str]]:
    """Ask ``choose`` for the ratio of every call of dropout, by where it is and what it states.

    Yields the paths of the modules that are being called, the innermost last.
    """
    paths = {id(part): path for path, part in reversed(list(module.named_modules()))}
    stack = [""]
    dropout, attention = F.dropout, F.scaled_dot_product_attention

    def diverted(
        input: Tensor,  # noqa: A002
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        ratio = choose((stack[-1], "dropout"), p if training else 0.0)
        return torch.dropout(input, ratio, train=bool(ratio))

    def attended(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        ratio = choose((stack[-1], "attention"), dropout_p)
        return attention(query, key, value, attn_mask, ratio, *args, **kwargs)

    def enter(part: nn.Module, _: Any) -> None:
        stack.append(paths.get(id(part), stack[-1]))

    def leave(part: nn.Module, *_: Any) -> None:
        stack.pop()

    hooks = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ]
    F.dropout, F.scaled_dot_product_attention = diverted, attended
    try:
        yield stack
    finally:
        F.dropout, F.scaled_dot_product_attention = dropout, attention
        for hook in hooks:
            hook.remove()


@contextmanager
def kept(module: nn.Module, ratios: Ratios) -> Iterator[None]:
    """Have calls of dropout draw, though ``module`` is in inference mode, as they do in training.

    Whoever exports it meanwhile sets the nodes to inference. Raises Refused where the export called
    dropout otherwise than the module did: then no ratio is sure.
    """
    if not ratios:
        yield
        return
    calls: Counter[Place] = Counter()

    def replay(place: Place, stated: float) -> float:
        calls[place] += 1
        known = ratios.get(place, [])
        return known[calls[place] - 1] if calls[place] <= len(known) else stated

    anew = module.register_forward_pre_hook(lambda *_: calls.clear())
    try:
        with _diverted(module, replay):
            yield
    finally:
        anew.remove()
    if any(calls[place] != len(known) for place, known in ratios.items()):
        reason = "its export does not call dropout as training does"
        raise Refused(type(module).__name__, reason, "export it with dropout=False")
