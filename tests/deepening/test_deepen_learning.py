"""What deepening inserts learns: every new parameter moves within a few steps of training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.deepening.places import every_place  # noqa: E402
from onnx_net2net.frameworks.roles import Role, paths, roles  # noqa: E402
from onnx_net2net.widening.dimensions import analyse  # noqa: E402
from tests.console import FIXTURES  # noqa: E402
from tests.test_fixtures import make_inputs  # noqa: E402


def moved(model: n2n.Model, steps: int) -> dict[str, bool]:
    """Which trained parameters of the module had a gradient in one of some SGD steps."""
    torch.manual_seed(0)
    module = n2n.to_torch(model).train()
    feeds = make_inputs(model.proto, 1)
    inputs = [torch.from_numpy(value) for value in feeds.values()]
    optimizer = torch.optim.SGD(module.parameters(), 1e-2)
    found = dict.fromkeys(dict(module.named_parameters()), False)
    for _ in range(steps):
        optimizer.zero_grad()
        given = module(*inputs)
        outputs = given if isinstance(given, tuple) else (given,)
        targets = [torch.randn_like(value) for value in outputs]
        sum((o - t).square().mean() for o, t in zip(outputs, targets, strict=True)).backward()
        optimizer.step()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            found[name] |= bool(parameter.grad.abs().max() > 0)
    return found


def dead(model: n2n.Model, changes: list, steps: int = 2) -> list[str]:
    """New parameters that have not moved."""
    path, role = paths(model), roles(model)
    seen = moved(model, steps=steps)
    new = [name for change in changes for name in change.parameters]
    return [n for n in new if role[n] is Role.PARAMETER and not seen[path[n]]]


NAMES = ["gpt2.dynamo-raw", "llama.dynamo-raw", "resnet.dynamo-raw", "vit.dynamo-raw", "t5.dynamo"]


@pytest.mark.parametrize("name", NAMES)
def test_copied_blocks_learn(name: str) -> None:
    """Their last projections are zero, and what is before these is reached in the second step."""
    model = n2n.load(FIXTURES / f"{name}.onnx")
    names = [block.name for block in n2n.blocks(model) if block.exact]
    deeper = n2n.deepen(model, block=names)
    assert dead(deeper, deeper.changes) == []


@pytest.mark.parametrize("name", ["gpt2.dynamo-raw", "llama.dynamo-raw", "vit.dynamo-raw"])
def test_blocks_that_cancel_learn_from_the_first_step(name: str) -> None:
    model = n2n.load(FIXTURES / f"{name}.onnx")
    names = [block.name for block in n2n.blocks(model) if block.exact]
    deeper = n2n.deepen(model, block=names, zero="cancel")
    assert dead(deeper, deeper.changes, steps=1) == []
    assert dead(n2n.deepen(model, block=names), deeper.changes, steps=1)  # zeros let nothing past


@pytest.mark.parametrize("init", ["auto", "residual", "factor"])
@pytest.mark.parametrize("name", ["resnet.ts17-raw", "mlp.dynamo", "vit.dynamo-raw"])
def test_inserted_layers_learn(name: str, init: str) -> None:
    model = n2n.load(FIXTURES / f"{name}.onnx")
    places = [place.tensor for place in every_place(analyse(model))][:4]
    deeper = n2n.deepen(model, places, init=init)
    assert deeper.changes and dead(deeper, deeper.changes) == []


def test_a_branch_of_two_zeros_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never both: no gradient would flow."""
    import numpy as np

    from onnx_net2net.deepening import insertion

    linear = insertion._linear
    monkeypatch.setattr(
        insertion, "_linear", lambda layers, w, *rest, **more: linear(layers, w * 0, *rest, **more)
    )
    deeper = n2n.deepen(n2n.load(FIXTURES / "mlp.dynamo.onnx"), "fc1", init="residual")
    assert not any(np.any(deeper.weights[n].array()) for n in deeper.changes[0].parameters)
    assert dead(deeper, deeper.changes)
