"""Optimizer state through growth, held against the gradients of networks that really grew."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
from torch import Tensor, nn  # noqa: E402

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.algebra.expansion import PAD  # noqa: E402
from onnx_net2net.frameworks.absorb import absorb  # noqa: E402
from onnx_net2net.frameworks.names import Names  # noqa: E402
from onnx_net2net.frameworks.optimizer import POWERS, grow_optimizer  # noqa: E402
from onnx_net2net.frameworks.state_dict import state_dict  # noqa: E402
from onnx_net2net.frameworks.torch.exporter import from_torch  # noqa: E402
from onnx_net2net.model.history import HISTORY  # noqa: E402
from onnx_net2net.widening import growth_record  # noqa: E402
from onnx_net2net.widening.growth_record import WeightGrowth, unpack  # noqa: E402

State = dict[str, Any]


class ConvNet(nn.Module):
    """Convolutions (one depthwise), BatchNorm, a residual, a head."""

    def __init__(self, width: int = 5, middle: int = 6, hidden: int = 7) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.up = nn.Conv2d(width, middle, 1)
        self.depth = nn.Conv2d(middle, middle, 3, padding=1, groups=middle)
        self.down = nn.Conv2d(middle, width, 1)
        self.fc = nn.Linear(width * 4, hidden)
        self.head = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.down(torch.tanh(self.depth(self.up(x))))
        x = nn.functional.avg_pool2d(x, 2).flatten(1)
        return self.head(nn.functional.gelu(self.fc(x)))


class Transformer(nn.Module):
    """One layer of attention and MLP; the head is the embedding, if tied."""

    def __init__(
        self, hidden: int = 8, heads: int = 2, entry: int = 4, mlp: int = 10, tied: bool = False
    ) -> None:
        super().__init__()
        self.shape = (heads, entry)
        self.embed = nn.Embedding(11, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.final = nn.LayerNorm(hidden)
        self.q, self.k, self.v = (nn.Linear(hidden, heads * entry) for _ in range(3))
        self.out = nn.Linear(heads * entry, hidden)
        self.up, self.down = nn.Linear(hidden, mlp), nn.Linear(mlp, hidden)
        self.head = nn.Linear(hidden, 11, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, self.shape).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = torch.softmax(q @ k.transpose(-1, -2) * 0.5, -1) @ v
        x = x + self.out(y.transpose(1, 2).flatten(2))
        x = x + self.down(nn.functional.silu(self.up(self.norm2(x))))
        return self.head(self.final(x))


class Tied(Transformer):
    """With its head tied."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__(hidden, tied=True)


def image(rng: torch.Generator) -> Tensor:
    return torch.randn(4, 2, 4, 4, generator=rng, dtype=torch.float64)


def tokens(rng: torch.Generator) -> Tensor:
    return torch.randint(11, (4, 5), generator=rng)


# The module, its input, and what grows: (names in the file, arguments of the class).
CASES: dict[str, tuple[Callable[..., nn.Module], Callable[..., Tensor], State, State]] = {
    "all of a convnet": (ConvNet, image, {"stem": 9, "up": 11, "fc": 12},
                         {"width": 9, "middle": 11, "hidden": 12}),
    "mlp": (Transformer, tokens, {"up": 17}, {"mlp": 17}),
    "heads": (Transformer, tokens, {"q:heads": 5}, {"heads": 5}),
    "head_dim": (Transformer, tokens, {"q:head_size": 7, "v:v_head_size": 7}, {"entry": 7}),
    "stream": (Transformer, tokens, {"embed": 16}, {"hidden": 16}),
    "tied stream": (Tied, tokens, {"embed": 16}, {"hidden": 16}),
    "all of a transformer": (
        Transformer, tokens,
        {"embed": 24, "up": 13, "q:heads": 3, "q:head_size": 6, "v:v_head_size": 6},
        {"hidden": 24, "mlp": 13, "heads": 3, "entry": 6},
    ),
    "padded stream": (Transformer, tokens, {"embed": 11}, {"hidden": 11}),
}  # fmt: skip


@cache
def exported(build: Callable[..., nn.Module], make: Callable[..., Tensor]) -> n2n.Model:
    """One export for all tests that start from the same module."""
    torch.manual_seed(0)
    return from_torch(build().double(), make(torch.Generator().manual_seed(1)))


def grown_pair(name: str, split: str) -> tuple[nn.Module, nn.Module, n2n.Model, Tensor]:
    """A module in float64, the one grown from it, the grown file, and an input."""
    build, make, widths, sizes = CASES[name]
    torch.manual_seed(0)
    old = build().double()
    x = make(torch.Generator().manual_seed(1))
    model = exported(build, make)
    grown = n2n.widen(model, widths, split=split, mapping="random", seed=3)
    new = build(**sizes).double()
    new.load_state_dict(state_dict(grown))
    if split != "noise" and "padded" not in name:
        torch.testing.assert_close(new.eval()(x), old.eval()(x))
    return old, new, grown, x


def gradients(module: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """Gradients of a loss that depends on the outputs only, BatchNorm training."""
    module.train()
    y = module(x)
    target = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    module.zero_grad()
    (y * target).sum().backward()
    return {n: p.grad.numpy().copy() for n, p in module.named_parameters() if p.grad is not None}


def predicted(gradient: np.ndarray, grown: WeightGrowth | None) -> np.ndarray:
    for along in grown.axes if grown is not None else ():
        parts = along.parts().reshape([-1 if i == along.axis else 1 for i in range(gradient.ndim)])
        gradient = np.take(gradient, np.maximum(along.source, 0), along.axis) * parts
    return gradient / (grown.eta if grown is not None else 1)


def growth_of(model: n2n.Model) -> dict[str, WeightGrowth]:
    """How each parameter grew in the last step, by its name in the module."""
    told, names = unpack(model.history[-1]), Names(model)
    keys = [*model.weights, *names.ties]
    return {key: told[names.find(key)] for key in keys if names.find(key) in told}


@pytest.mark.parametrize("name", [name for name in CASES if "padded" not in name])
def test_gradients_after_an_even_growth_are_those_predicted(name: str) -> None:
    old, new, model, x = grown_pair(name, "even")
    before, after = gradients(old, x), gradients(new, x)
    told = growth_of(model)
    assert told.keys() & after.keys()
    for key, gradient in after.items():
        expected = predicted(before[key], told.get(key))
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9, err_msg=key)


def test_padded_streams_reach_readers_and_norms_exactly() -> None:
    """What writes a padded stream feels the norm's statistics over the pads, too: only nearly."""
    old, new, model, x = grown_pair("padded stream", "even")
    for norm in (new.norm1, new.norm2, new.final):
        norm.eps *= 8 / 11
    torch.testing.assert_close(new(x), old(x))
    before, after = gradients(old, x), gradients(new, x)
    told = growth_of(model)
    read = {key for key in after if key not in told or told[key].axes[0].kind == "splits"}
    read |= {f"{norm}.weight" for norm in ("norm1", "norm2", "final")}
    assert {"q.weight", "k.weight", "up.weight", "head.weight", "q.bias"} <= read
    for key in read:
        real = np.ones(1, bool)
        if key in told:  # what a padded entry is given is zero, its gradient need not be
            real = told[key].axes[0].source != PAD
        expected = predicted(before[key], told.get(key))
        kept = np.broadcast_to(real, after[key].shape)
        np.testing.assert_allclose(after[key][kept], expected[kept], rtol=1e-6, atol=1e-9)


def summed(gradient: np.ndarray, grown: WeightGrowth | None) -> np.ndarray:
    """What the old gradient must be: written copies add up, copies that are read agree."""
    for along in grown.axes if grown is not None else ():
        parts = np.moveaxis(gradient, along.axis, 0)
        total = np.zeros((along.old, *parts.shape[1:]))
        if along.kind == "writes":
            np.add.at(total, along.source, parts)
        else:
            total[along.source] = parts
            np.testing.assert_allclose(parts, total[along.source], rtol=1e-6, atol=1e-9)
        gradient = np.moveaxis(total, 0, along.axis)
    return gradient


@pytest.mark.parametrize("name", [name for name in CASES if "padded" not in name])
def test_gradients_of_random_shares_add_up_and_known_shares_are_exact(name: str) -> None:
    old, new, model, x = grown_pair(name, "project")
    before, after = gradients(old, x), gradients(new, x)
    told = growth_of(model)
    shared, differ = set(), 0
    for key, gradient in after.items():
        grown = told.get(key, WeightGrowth())
        if any(along.shares is not None for along in grown.axes):
            shared.add(key)
            continue
        np.testing.assert_allclose(
            summed(gradient, grown), before[key], rtol=1e-6, atol=1e-9, err_msg=key
        )
        even = predicted(before[key], grown)
        differ += not np.allclose(even, gradient, rtol=1e-3)
    if name == "head_dim":
        assert shared == {"q.weight", "q.bias", "k.weight", "k.bias"}
        for key in shared:
            expected = predicted(before[key], told[key])
            np.testing.assert_allclose(after[key], expected, rtol=1e-6, atol=1e-9, err_msg=key)
    assert differ, "or the shares were even after all"


# ---- optimizers ---------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": partial(torch.optim.SGD, lr=0.01, momentum=0.9),
    "SGD without momentum": partial(torch.optim.SGD, lr=0.01),
    "Adam": partial(torch.optim.Adam, lr=1e-3),
    "AdamW": partial(torch.optim.AdamW, lr=1e-3, amsgrad=True),
    "Adamax": partial(torch.optim.Adamax, lr=1e-3),
    "NAdam": partial(torch.optim.NAdam, lr=1e-3),
}


def step(module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    gradients(module, x)
    optimizer.step()


def trained(kind: str) -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
    torch.manual_seed(0)
    module = ConvNet().double()
    optimizer = OPTIMIZERS[kind](module.named_parameters())
    x = image(torch.Generator().manual_seed(1))
    for _ in range(3):
        step(module, optimizer, x)
    return module, optimizer, x


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_grown_state_goes_on_as_the_old_one_would_have_grown(kind: str) -> None:
    """Grow, then step: the same as step, then grow. Twice grown, and once trained between."""
    module, optimizer, x = trained(kind)
    model = absorb(exported(ConvNet, image), module)
    once = n2n.widen(model, {"stem": 9, "up": 8}, split="even", seed=1)
    twice = n2n.widen(absorb(once, state_dict(once)), {"up": 11, "fc": 12}, split="even", seed=2)
    new = ConvNet(9, 11, 12).double()
    new.load_state_dict(state_dict(twice))
    wider = OPTIMIZERS[kind](new.named_parameters())
    wider.load_state_dict(grow_optimizer(optimizer.state_dict(), twice))
    step(module, optimizer, x)
    step(new, wider, x)
    expected = grow_optimizer(optimizer.state_dict(), twice)["state"]
    found = wider.state_dict()["state"]
    assert found.keys() == expected.keys()
    for index, entry in expected.items():
        assert entry.keys() == found[index].keys()
        for what, value in entry.items():
            if value is not None:
                torch.testing.assert_close(
                    torch.as_tensor(found[index][what]),
                    torch.as_tensor(value),
                    check_dtype=what != "mu_product",  # a number; loading makes it float64
                    msg=what,
                )


def test_a_state_lies_in_memory_as_its_parameter_does() -> None:
    """Fused optimizers read both side by side, and do not look at strides."""
    module, optimizer, x = trained("Adam")
    model = n2n.widen(absorb(exported(ConvNet, image), module), {"stem": 9, "up": 8})
    results = []
    for fused in (False, True):
        new = ConvNet(9, 8).double().to(memory_format=torch.channels_last)
        new.load_state_dict(state_dict(model))
        wider = torch.optim.Adam(new.named_parameters(), lr=1e-3, fused=fused)
        wider.load_state_dict(grow_optimizer(optimizer.state_dict(), model, into=wider))
        step(new, wider, x)
        results.append(new.state_dict())
    torch.testing.assert_close(*results)


def test_every_known_state_is_one_that_an_optimizer_keeps() -> None:
    kept = set()
    for kind in OPTIMIZERS:
        for entry in trained(kind)[1].state_dict()["state"].values():
            kept |= {what for what, value in entry.items() if getattr(value, "ndim", 0)}
    assert kept == POWERS.keys()


@pytest.mark.parametrize("what", sorted(POWERS))
def test_a_wrong_power_would_be_seen(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {
        "exp_avg": "Adam",
        "exp_avg_sq": "Adam",
        "exp_inf": "Adamax",
        "max_exp_avg_sq": "AdamW",
        "momentum_buffer": "SGD",
    }
    monkeypatch.setitem(POWERS, what, 3 - POWERS[what])  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        test_a_grown_state_goes_on_as_the_old_one_would_have_grown(kinds[what])


def test_equal_gradients_for_copies_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_record, "multiplicity", lambda source: np.ones(len(source)))
    with pytest.raises(AssertionError):
        test_gradients_after_an_even_growth_are_those_predicted("mlp")


# ---- deepening ----------------------------------------------------------------------------------


class Residual(nn.Module):
    """A block whose parameters are not created in the order in which they are used."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, width)
        self.up = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Stack(nn.Module):
    """Numbered blocks between two layers."""

    def __init__(self, depth: int = 2, hidden: int = 7) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 6)
        self.blocks = nn.ModuleList(Residual(6, hidden) for _ in range(depth))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def rows(rng: torch.Generator) -> Tensor:
    return torch.randn(4, 3, generator=rng, dtype=torch.float64)


def grouped(module: nn.Module, kind: str) -> torch.optim.Optimizer:
    """An optimizer in which vectors have another rate than matrices."""
    named = list(module.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named if p.ndim > 1], "lr": 1e-3},
        {"params": [(n, p) for n, p in named if p.ndim < 2], "lr": 2e-3},
    ]
    return OPTIMIZERS[kind](groups)


def trained_stack(kind: str) -> tuple[nn.Module, torch.optim.Optimizer, n2n.Model, Tensor]:
    torch.manual_seed(0)
    module = Stack().double()
    x = rows(torch.Generator().manual_seed(1))
    optimizer = grouped(module, kind)
    for _ in range(3):
        step(module, optimizer, x)
    return module, optimizer, absorb(exported(Stack, rows), module), x


def by_name(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    state = optimizer.state_dict()
    names = {n: k for g in state["param_groups"] for n, k in zip(g["params"], g["param_names"])}  # noqa: B905
    return {names[number]: entry for number, entry in state["state"].items()}


def renumbered(state: State) -> dict[str, Any]:
    """The same with parameters numbered in their order, as a fresh optimizer has them."""
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    entries = {numbers.index(number): entry for number, entry in state["state"].items()}
    return {**state, "state": entries}


# Blocks and copies of each; where the two old blocks stand in the end.
DEPTHS: dict[str, tuple[list[dict[str, int]], list[int]]] = {
    "behind each": ([{"blocks.0": 1, "blocks.1": 1}], [0, 2]),
    "behind the first": ([{"blocks.0": 2}], [0, 3]),
    "behind the last": ([{"blocks.1": 2}], [0, 1]),
    "behind a copy": ([{"blocks.0": 1}, {"blocks.1": 1}], [0, 3]),
    "uneven": ([{"blocks.0": 2, "blocks.1": 3}], [0, 3]),
}


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "NAdam"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_state_goes_through_deepening_and_widening(kind: str, depth: str) -> None:
    """Grow, then step: old parameters do what they would have done, new ones begin."""
    module, optimizer, model, x = trained_stack(kind)
    steps, places = DEPTHS[depth]
    wide = n2n.widen(model, {"blocks.0.up": 11, "blocks.1.up": 11}, split="even")
    deep = wide
    for blocks in steps:
        deep = n2n.deepen(deep, block=blocks)
    new = Stack(2 + sum(sum(blocks.values()) for blocks in steps), 11).double()
    new.load_state_dict(state_dict(deep))
    torch.testing.assert_close(new(x), module(x))

    larger = grouped(new, kind)
    state = grow_optimizer(optimizer.state_dict(), deep)
    assert [g["param_names"] for g in state["param_groups"]] == [
        g["param_names"] for g in larger.state_dict()["param_groups"]
    ]
    assert same(grow_optimizer(optimizer.state_dict(), deep, into=larger), renumbered(state))
    larger.load_state_dict(state)
    renamed = {f"blocks.{i}.": f"blocks.{at}." for i, at in enumerate(places)}

    def later(name: str) -> str:
        return next((name.replace(o, n, 1) for o, n in renamed.items() if name.startswith(o)), name)

    begun = by_name(larger)
    assert begun.keys() == {later(name) for name in by_name(optimizer)}
    step(module, optimizer, x)
    step(new, larger, x)
    expected = grow_optimizer(optimizer.state_dict(), wide)
    keys = [name for g in expected["param_groups"] for name in g["param_names"]]
    found = by_name(larger)
    assert found.keys() == dict(new.named_parameters()).keys()
    for index, entry in expected["state"].items():
        for what, value in entry.items():
            torch.testing.assert_close(
                torch.as_tensor(found[later(keys[index])][what]),
                torch.as_tensor(value),
                check_dtype=what != "mu_product",
                msg=f"{what} of {keys[index]}",
            )
    for name in found.keys() - begun.keys():
        assert found[name].get("step", 1) == 1, "a new parameter counts its steps from one"


def test_new_layers_join_the_group_of_the_layer_before_them() -> None:
    module, optimizer, model, _ = trained_stack("Adam")
    deep = n2n.deepen(model, after="blocks.0.up")
    state = grow_optimizer(optimizer.state_dict(), deep)
    names = [group["param_names"] for group in state["param_groups"]]
    at = names[0].index("blocks.0.up.weight")
    assert names[0][at + 1 : at + 3] == [f"blocks.0.up_deeper.{i}.weight" for i in (0, 1)]
    assert {f"blocks.0.up_deeper.{i}.bias" for i in (0, 1)} <= set(names[1])
    assert same(state, optimizer.state_dict())

    named = dict(n2n.to_torch(deep).double().named_parameters())
    groups = [{"params": [(name, named.pop(name)) for name in group]} for group in names]
    assert not named, "every parameter has its group"
    larger = OPTIMIZERS["Adam"](groups)
    larger.load_state_dict(state)
    assert by_name(larger).keys() == by_name(optimizer).keys()

    entries = {"params": [(n, p) for n, p in module.named_parameters() if "up" not in n]}
    apart = OPTIMIZERS["Adam"]([entries, {"params": [("x", nn.Parameter(torch.ones(1)))]}])
    with pytest.raises(n2n.Refused, match=r"several groups.*\n?.*into=wider"):
        grow_optimizer(apart.state_dict(), deep.history)
    with pytest.raises(n2n.Refused, match="rotated"):
        grow_optimizer(optimizer.state_dict(), n2n.deepen(model, after="head", init="factor"))


@pytest.mark.parametrize("together", [True, False])
def test_new_layers_stay_behind_theirs_when_blocks_are_copied(together: bool) -> None:
    _, optimizer, model, _ = trained_stack("Adam")
    if together:
        deep = n2n.deepen(model, after="blocks.1.up", block="blocks.0")
    else:
        deep = n2n.deepen(n2n.deepen(model, after="blocks.1.up"), block="blocks.0")
    names = grow_optimizer(optimizer.state_dict(), deep)["param_groups"][0]["param_names"]
    at = names.index("blocks.2.up.weight")
    assert names[at + 1 : at + 3] == [f"blocks.2.up_deeper.{i}.weight" for i in (0, 1)]
    assert all(name in deep.weights for change in deep.changes for name in change.parameters)


def test_frozen_blocks_have_frozen_copies_and_wrapped_names_stay_wrapped() -> None:
    module, _, model, x = trained_stack("Adam")
    trained = {f"module.{n}": p for n, p in module.named_parameters() if "blocks.0" not in n}
    optimizer = OPTIMIZERS["Adam"](trained.items())
    step(module, optimizer, x)
    deep = n2n.deepen(model, block={"blocks.0": 1, "blocks.1": 1})
    state = grow_optimizer(optimizer.state_dict(), deep)
    names = state["param_groups"][0]["param_names"]
    expected = [f"module.{n}" for n, _ in Stack(4).named_parameters() if n[:8] not in FROZEN]
    assert names == expected


FROZEN = ("blocks.0", "blocks.1")


def test_an_optimizer_of_another_module_is_refused() -> None:
    _, optimizer, model, _ = trained_stack("Adam")
    deep = n2n.deepen(n2n.widen(model, {"blocks.0.up": 11}), block="blocks.0")
    state = optimizer.state_dict()
    with pytest.raises(n2n.UsageError, match=r"no parameters blocks\.2"):
        grow_optimizer(state, deep, into=grouped(Stack(2).double(), "Adam"))
    with pytest.raises(n2n.UsageError, match=r"becomes \[6, 11\], but .* \[6, 7\]"):
        grow_optimizer(state, deep, into=grouped(Stack(3).double(), "Adam"))
    with pytest.raises(n2n.UsageError, match="named_parameters"):
        grow_optimizer(state, deep, into=torch.optim.Adam(Stack(3).parameters()))


# ---- what is given ------------------------------------------------------------------------------


def grown_state() -> tuple[State, n2n.Model]:
    module, optimizer, _ = trained("Adam")
    model = absorb(exported(ConvNet, image), module)
    return optimizer.state_dict(), n2n.widen(model, {"stem": 9, "fc": 12})


def same(a: Any, b: Any) -> bool:
    return all(
        torch.equal(torch.as_tensor(a["state"][i][k]), torch.as_tensor(b["state"][i][k]))
        for i in b["state"]
        for k in b["state"][i]
    )


def test_histories_of_every_kind_are_read(tmp_path: Any) -> None:
    state, model = grown_state()
    before = copy.deepcopy(state)
    expected = grow_optimizer(state, model)
    assert expected["param_groups"] == state["param_groups"]
    path = model.save(tmp_path / "grown.onnx")
    for history in (path, str(path), model.history, model.metadata[HISTORY]):
        assert same(grow_optimizer(state, history), expected)
    assert same(state, before), "the given state is left as it was"


def test_names_come_from_the_optimizer_or_are_given() -> None:
    state, model = grown_state()
    expected = grow_optimizer(state, model)
    names = [name for group in state["param_groups"] for name in group["param_names"]]
    anonymous = copy.deepcopy(state)
    for group in anonymous["param_groups"]:
        del group["param_names"]
    assert same(grow_optimizer(anonymous, model, parameters=names), expected)
    wrapped = [f"module._orig_mod.{name}" for name in names]
    assert same(grow_optimizer(anonymous, model, parameters=wrapped), expected)
    assert same(grow_optimizer(anonymous, model.history, parameters=wrapped), expected)
    with pytest.raises(n2n.UsageError, match="named_parameters"):
        grow_optimizer(anonymous, model)
    with pytest.raises(n2n.UsageError, match="one name for each"):
        grow_optimizer(anonymous, model, parameters=names[1:])
    with pytest.raises(n2n.UsageError, match=r"no weights another\.weight"):
        grow_optimizer(anonymous, model, parameters=["another.weight", *names[1:]])
    with pytest.raises(n2n.UsageError, match="none of the optimizer's parameters"):
        grow_optimizer(anonymous, model.history, parameters=[f"x{n}" for n in names])
    with pytest.raises(n2n.UsageError, match=r"axis 0 of the weight had|had \d+ entries"):
        grow_optimizer(anonymous, model, parameters=names[::-1])


def test_states_and_steps_that_cannot_grow_are_refused() -> None:
    state, model = grown_state()
    with pytest.raises(n2n.UsageError, match="no steps"):
        grow_optimizer(state, [])
    with pytest.raises(n2n.UsageError, match="no state of an optimizer"):
        grow_optimizer({}, model)
    with pytest.raises(n2n.Refused, match="'replace'"):
        grow_optimizer(state, [*model.history, {"operation": "replace"}])
    with pytest.raises(n2n.InvalidModel, match="which parameters are new"):
        grow_optimizer(state, [*model.history, {"operation": "deepen"}])
    old = [{k: v for k, v in entry.items() if k != "maps"} for entry in model.history]
    with pytest.raises(n2n.InvalidModel, match="how each weight grew"):
        grow_optimizer(state, old)
    with pytest.raises(n2n.InvalidModel):
        grow_optimizer(state, "[1")
    odd = copy.deepcopy(state)
    odd["state"][0]["hessian"] = odd["state"][0]["exp_avg"]
    with pytest.raises(n2n.Refused, match="hessian"):
        grow_optimizer(odd, model)


def damaged(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Histories with one thing wrong in each."""
    found = []
    key = next(iter(details["maps"]))
    old, length, text = details["maps"][key]
    for entry in (
        [old, length + 1, text], [old, 1 << 40, text], [old, length, text[:-4]], [0, length],
        [1, length, text], [old, length, "?"], [old, length, 3], None,
    ):  # fmt: skip
        found.append({**details, "maps": {**details["maps"], key: entry}})
    for group in (3, [["a"]], [["a"], 1.0, [0, "none", "writes"]], [["a"], 1.0, [0, key, "reads"]],
                  [["a"], 1.0, [-1, key, "writes"]], [[5], 1.0, [0, key, "writes"]]):  # fmt: skip
        found.append({**details, "weights": [*details["weights"], group]})
    return found


def test_damaged_histories_are_refused() -> None:
    details = json.loads(json.dumps(grown_state()[1].history[-1]))
    unpack(details)
    for broken in damaged(details):
        with pytest.raises(n2n.InvalidModel):
            unpack(broken)
