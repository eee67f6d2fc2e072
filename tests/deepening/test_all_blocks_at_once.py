"""Blocks are copied in one edit: it must do what an edit for each block does, from the last on."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import ModelProto

import onnx_net2net as n2n
from tests.console import FIXTURES
from tests.deepening.test_deepen_names import stacked
from tests.long_networks import numbered
from tests.networks import Net

MODELS: dict[str, Callable[[], n2n.Model]] = {
    "paths": lambda: n2n.load(numbered(4)),
    "norms": lambda: n2n.load((net := Net()).model(stacked(net, norm=True))),
    "nested": lambda: n2n.load(nested()),
} | {
    name: lambda name=name: n2n.load(FIXTURES / f"{name}.onnx")  # type: ignore[misc]
    # one with blocks that have names, and no number, within a numbered one
    for name in ("bert-classic.mha", "gpt2.ort", "mobilenetv3.ts11", "swin.ts11", "t5.ts17")
}


def nested() -> ModelProto:
    """Blocks whose parts are counted, too."""
    net = Net()
    x = net.input("n", 6)
    for name in ("a.0", "a.1.b.0", "a.1.b.1", "a.2"):
        hidden = net("Relu", net("MatMul", x, net.weight(6, 5, name=f"{name}.up.weight")))
        x = net("Add", x, net("MatMul", hidden, net.weight(5, 6, name=f"{name}.down.weight")))
    return net.model(x)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("renumber", [True, False])
def test_as_block_by_block(name: str, renumber: bool) -> None:
    model = MODELS[name]()
    blocks = [block for block in n2n.blocks(model) if block.exact]
    copies = {block.name: 1 + at % 2 for at, block in enumerate(blocks)}
    deeper = n2n.deepen(model, block=copies, renumber=renumber)

    one_by_one = model
    for block in reversed(blocks):
        one = {block.name: copies[block.name]}
        one_by_one = n2n.deepen(one_by_one, block=one, renumber=renumber)
    at_once, apart = (onnx.load_from_string(m.to_bytes()).graph for m in (deeper, one_by_one))
    assert at_once.SerializeToString() == apart.SerializeToString()

    renames = {old: new for change in deeper.changes for old, new in change.renames.items()}
    steps = [change["renames"] for step in one_by_one.history for change in step["changes"]]
    for old in model.weights:
        now = old
        for step in steps:
            now = step.get(now, now)
        assert renames.get(old, old) == now, "what the history says of names"
