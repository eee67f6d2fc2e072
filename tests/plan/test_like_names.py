"""Series under whatever names authors number them by: grown into the class, built longer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial

import pytest

import onnx_net2net as n2n
from onnx_net2net.deepening import block_copies
from onnx_net2net.model import numbers

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
from torch import Tensor, nn  # noqa: E402

Build = Callable[[], nn.Module]


class Residual(nn.Module):
    """Two numbered layers of one kind in a block; one with ``outer`` changes the width."""

    def __init__(self, width: int = 6, outer: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.Sequential(OrderedDict(scale=nn.LayerNorm(outer or width)))
        self.fc1 = nn.Sequential(nn.Linear(outer or width, width), nn.GELU())
        self.fc2 = nn.Sequential(nn.Linear(width, width))
        self.proj = nn.Linear(outer, width) if outer else None

    def forward(self, x: Tensor) -> Tensor:
        branch = self.fc2(self.fc1(self.norm1(x)))
        return branch + (x if self.proj is None else self.proj(x))


def encoder(
    count: int, prefix: str = "encoder_layer_", first: int = 0, width: int = 6
) -> nn.Module:
    """Members that ``prefix`` and a number name, in a module that has a number itself."""
    members = {f"{prefix}{number + first}": Residual(width) for number in range(count)}
    layers = nn.Sequential(OrderedDict(stem=nn.Linear(5, width), **members))
    return nn.Sequential(OrderedDict(encoder=layers, head=nn.Linear(width, 3)))


def stages(*depths: int) -> nn.Module:
    """Stages ``block1``, ..., with blocks ``block1-0``, ..., of which the first is of its own."""
    network, width = nn.Sequential(), 5
    for stage, depth in enumerate(depths, 1):
        members = OrderedDict(
            (f"block{stage}-{number}", Residual(4 + stage, 0 if number else width))
            for number in range(depth)
        )
        network.add_module(f"block{stage}", nn.Sequential(members))
        width = 4 + stage
    return network


def padded(count: int) -> nn.Module:
    """Numbers of two digits, in root's own names."""
    return nn.Sequential(OrderedDict((f"layer_{n:02}", Residual(5)) for n in range(8, 8 + count)))


class DenseLayer(nn.Module):
    """One of a dense block: it reads all that was given before, side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm1d(width), nn.Linear(width, 5, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm1d(5), nn.Linear(5, 3, bias=False)

    def forward(self, parts: list[Tensor]) -> Tensor:
        hidden = self.conv1(self.norm1(torch.cat(parts, 1)).relu())
        return self.conv2(self.norm2(hidden).relu())


class DenseBlock(nn.ModuleDict):
    def __init__(self, count: int, width: int) -> None:
        super().__init__({f"denselayer{i + 1}": DenseLayer(width + 3 * i) for i in range(count)})

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for layer in self.values():
            parts.append(layer(parts))
        return torch.cat(parts, 1)


def densenet(*counts: int) -> nn.Module:
    network, width = nn.Sequential(), 5
    for stage, count in enumerate(counts, 1):
        network.add_module(f"denseblock{stage}", DenseBlock(count, width))
        width += 3 * count
        network.add_module(f"norm{stage}", nn.BatchNorm1d(width))
        network.add_module(f"transition{stage}", nn.Linear(width, width // 2))
        width //= 2
    network.add_module("head", nn.Linear(width, 3))
    return network


def with_gaps(count: int) -> nn.Module:
    """Every second part has no parameters, and a number."""
    parts = [part for _ in range(count) for part in (Residual(5), nn.Dropout(0.1))]
    return nn.Sequential(OrderedDict(layers=nn.Sequential(*parts), head=nn.Linear(5, 3)))


def stacked(*counts: int) -> nn.Module:
    """As VGG numbers its layers: those without parameters stand between stages."""
    parts: list[nn.Module] = []
    for count in counts:
        for _ in range(count):
            parts += [nn.Linear(5, 5), nn.ReLU()]
        parts.append(nn.Dropout(0.1))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*parts), head=nn.Linear(5, 3)))


LONGER: dict[str, tuple[Build, Build, list[tuple[str, int]]]] = {
    "behind letters": (
        partial(encoder, 2),
        partial(encoder, 4),
        [("encoder.encoder_layer_0", 1), ("encoder.encoder_layer_1", 1)],
    ),
    "of one": (partial(encoder, 1), partial(encoder, 3), [("encoder.encoder_layer_0", 2)]),
    "no separator": (
        partial(encoder, 2, "denselayer", 1),
        partial(encoder, 3, "denselayer", 1),
        [("encoder.denselayer2", 1)],
    ),
    "from elsewhere": (
        partial(encoder, 2, "block4-", 7),
        partial(encoder, 3, "block4-", 7),
        [("encoder.block4-8", 1)],
    ),
    "in numbered stages": (
        partial(stages, 1, 2, 2),
        partial(stages, 1, 3, 4),
        [("block2.block2-1", 1), ("block3.block3-1", 2)],
    ),
    "of dense layers": (
        partial(densenet, 1, 2),
        partial(densenet, 1, 4),
        [("denseblock2.denselayer2", 2)],
    ),
    "of dense layers, and what is wider then": (
        partial(densenet, 2, 2),
        partial(densenet, 3, 3),
        [("denseblock1.denselayer2", 1), ("denseblock2.denselayer2", 1)],
    ),
    "with gaps": (partial(with_gaps, 2), partial(with_gaps, 4), [("layers.0", 1), ("layers.2", 1)]),
    "of two digits": (partial(padded, 2), partial(padded, 3), [("layer_09", 1)]),
    "wider, too": (
        partial(encoder, 2),
        partial(encoder, 3, width=12),
        [("encoder.encoder_layer_1", 1)],
    ),
}


def drawn(build: Build) -> nn.Module:
    """A module with weights that are not those of its birth."""
    torch.manual_seed(0)
    module = build().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter) / 4
    return module


@cache
def exported(build: Build) -> n2n.Model:
    return n2n.from_torch(drawn(build), torch.randn(2, 5))


@pytest.mark.parametrize("name", LONGER)
def test_a_series_grows_into_the_longer_class(name: str) -> None:
    small, large, copies = LONGER[name]
    grown = n2n.grow(exported(small), like=exported(large))
    own = large().eval()
    own.load_state_dict(n2n.state_dict(grown))  # strictly
    module, x = drawn(small), torch.randn(7, 5)
    torch.testing.assert_close(own(x), module(x), rtol=1e-4, atol=1e-5)
    report = n2n.transfer(module, large().eval(), torch.randn(2, 5))
    assert sorted(report.copies) == copies


def test_the_optimizer_follows_into_longer_dense_blocks() -> None:
    """Moments of a norm over more units are those of before, and zeros."""
    small, large = drawn(partial(densenet, 1, 2)), densenet(1, 4).eval()
    optimizers = [torch.optim.Adam(module.parameters()) for module in (small, large)]
    small(torch.randn(4, 5)).square().sum().backward()
    optimizers[0].step()
    n2n.transfer(
        small, large, torch.randn(2, 5), optimizer=optimizers[0], large_optimizer=optimizers[1]
    )
    before, after = (
        optimizer.state[module.get_submodule("norm2").weight]["exp_avg"]
        for optimizer, module in zip(optimizers, (small, large), strict=True)
    )
    torch.testing.assert_close(after[: len(before)], before)
    assert before.any() and not after[len(before) :].any()


IMPOSSIBLE = {
    "no block to copy": (
        partial(stages, 1, 1),
        partial(stages, 1, 2),
        r"'block2.block2-' cannot grow from 1 members to 2: no member can be copied exactly",
    ),
    "uneven gaps": (
        partial(stacked, 1, 1),
        partial(stacked, 1, 2),
        r"'features' cannot grow from 2 members to 3: its members are numbered 0, 3, 5, so that "
        "no rule says what new ones are",
    ),
    "fewer": (
        partial(encoder, 3),
        partial(encoder, 2),
        "'encoder.encoder_layer_' would shrink from 3 to 2 members",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_reached_is_said(name: str) -> None:
    small, large, problem = IMPOSSIBLE[name]
    with pytest.raises(n2n.Refused, match=problem):
        n2n.grow(exported(small), like=exported(large))


def test_layers_of_one_block_are_no_series() -> None:
    """``fc1`` and ``fc2`` hold parameters of the same names, and are no blocks."""
    names = [block.name for block in n2n.blocks(exported(partial(encoder, 2)))]
    assert names == ["encoder.encoder_layer_0", "encoder.encoder_layer_1"]
    first = next(iter(n2n.blocks(exported(partial(encoder, 2)))))
    assert (first.series, first.index) == ("encoder.encoder_layer_", 0)


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("h.3.attn.weight", ["h.3"]),
        ("a.0.b2.1.weight", ["a.0", "a.0.b2", "a.0.b2.1"]),
        ("encoder_layer_12.ln_1.weight", ["encoder_layer_12", "encoder_layer_12.ln_1"]),
        ("block4.block4-2.f.weight", ["block4", "block4.block4-2"]),
        ("0.conv1x1.weight", ["0.conv1x1"]),
        ("weight1", []),
        ("/layer1/layer1.0/conv1/Conv_output_0", []),
    ],
)
def test_members_in_names(name: str, members: list[str]) -> None:
    assert [*numbers.members_in(name)] == members


@pytest.mark.parametrize(
    ("text", "prefix", "expected"),
    [
        ("block4.block4-2.f", "block4.block4-", "block4.block4-3.f"),
        ("block4-2.f", "block", "block4-2.f"),
        ("['d', 'd.denselayer9', 'd.denselayer9.conv1']", "d.denselayer", None),
        ("layer_09.conv1", "layer_", "layer_10.conv1"),
        ("layer1.conv1", "layer1.conv", "layer1.conv2"),
        ("my_layer_1.x", "layer_", "my_layer_1.x"),
        ("/a/layers/layer_3/conv1/Conv", "a.layers.layer_", "/a/layers/layer_4/conv1/Conv"),
    ],
)
def test_renumbering_behind_letters(text: str, prefix: str, expected: str | None) -> None:
    expected = expected or "['d', 'd.denselayer10', 'd.denselayer10.conv1']"
    assert numbers.renumbered(text, prefix, lambda n: n + 1) == expected


# ---- planted faults ------------------------------------------------------------------------------


def test_copies_that_keep_the_old_number_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large, _ = LONGER["behind letters"]
    monkeypatch.setattr(block_copies, "renumbered", lambda text, *_: text)
    with pytest.raises(n2n.Refused, match="not of the larger one's shape"):
        n2n.grow(exported(small), like=exported(large))
