"""Blocks are copied in one edit: it must do what an edit for each block does, from the last on."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

import onnx_net2net as n2n
from tests.console import FIXTURES
from tests.deepening.test_deepen_names import stacked
from tests.deepening.test_dense_blocks import headed
from tests.long_networks import numbered
from tests.networks import Net, row

MODELS: dict[str, Callable[[], n2n.Model]] = {
    "paths": lambda: n2n.load(numbered(4)),
    "norms": lambda: n2n.load((net := Net()).model(stacked(net, norm=True))),
    "nested": lambda: n2n.load(row("a.0", "a.1.b.0", "a.1.b.1", "a.2")),
    "gaps": lambda: n2n.load(row("a.0", "a.2", "a.4")),
    "letters": lambda: n2n.load(row("a.layer_08.mlp", "a.layer_09.mlp", "a.layer_10.mlp")),
    "dense": lambda: n2n.load(headed()),
} | {
    name: lambda name=name: n2n.load(FIXTURES / f"{name}.onnx")  # type: ignore[misc]
    # one with blocks that have names, and no number, within a numbered one
    for name in ("bert-classic.mha", "gpt2.ort", "mobilenetv3.ts11", "swin.ts11", "t5.ts17")
}


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

    for old in model.weights:
        told = [later(old, grown) for grown in (deeper, one_by_one)]
        assert told[0] == told[1], "what the history says of names"


def later(name: str, model: n2n.Model) -> str:
    """Return what became of a weight's name, by the history."""
    for step in model.history:
        for change in step["changes"]:
            name = change["renames"].get(name, name)
    return name
