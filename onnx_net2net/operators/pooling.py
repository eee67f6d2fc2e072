"""Pooling and other windows without weights.

"b c *s -> b c *t"      MaxPool
"b c *s -> b c 1 1"     GlobalAveragePool
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from onnx_net2net.operators.language import Kind, Op, Rule, Unsupported, line, names
from onnx_net2net.operators.record import Operator, Table
from onnx_net2net.operators.windows import sliding

WINDOW = "a pooling window slides over it"
POWERS = {1: "l1", 2: "l2"}


def pool(op: Op) -> Rule:
    """Let spatial axes pass only where the window is a single entry.

    MaxPool's second output, indices into the whole tensor, is not described.
    """
    trivial = (
        all(k == 1 for k in op.attr("kernel_shape", ()))
        and all(s == 1 for s in op.attr("strides", ()))
        and not any(op.attr("pads", ()))
    )
    if trivial:
        return Rule("b c *s -> b c *s")
    sizes = {} if op.outputs[0] is not None else sliding(op, op.attr("kernel_shape", ()), "t.")
    return Rule("b c *s -> b c *t", sizes, {"s*": WINDOW, "t*": WINDOW})


def global_pool(kind: str) -> Callable[[Op], Rule]:
    """Return the rule that reduces all spatial axes by ``kind``."""

    def rule(op: Op) -> Rule:
        spatial = names("s", op.rank() - 2)
        text = line([["b", "c", *spatial]], [["b", "c", *["1"] * len(spatial)]])
        return Rule(text, reduce=dict.fromkeys(spatial, kind))

    return rule


def global_lp_pool(op: Op) -> Rule:
    """Take the Lp norm over all spatial axes."""
    power = int(op.attr("p", 2))
    rule = global_pool(POWERS.get(power, ""))(op)
    if power not in POWERS:
        rule = replace(rule, reduce={}, fixed={"s*": f"an L{power} norm runs over it"})
    return rule


def col2im(op: Op) -> Rule:
    """Add columns of kernel windows, channel by channel, into an image."""
    window = prod(int(n) for n in op.known(2))
    fixed = {
        "k": "it is a kernel window",
        "l": "its windows are laid out in an image",
        "t*": WINDOW,
    }
    return Rule("b (c k) l, _, _ -> b c *t", sizes={"k": window}, fixed=fixed)


def max_unpool(op: Op) -> Rule:
    """Refuse: where entries go is known at run time only."""
    raise Unsupported("its indices count through the whole tensor")


TABLES: dict[str, Table] = {
    "": {
        "AveragePool": Operator(pool, Kind.SCALE),
        "Col2Im": Operator(col2im),
        "GlobalAveragePool": Operator(global_pool("mean"), Kind.SCALE),
        "GlobalLpPool": Operator(global_lp_pool),
        "GlobalMaxPool": Operator(global_pool("max")),
        "LRN": Operator(
            Rule("b c *s -> b c *s", fixed={"c": "it is normalised in a window of channels"})
        ),
        "LpPool": Operator(pool),
        "MaxPool": Operator(pool),
        "MaxUnpool": Operator(max_unpool),
    }
}
