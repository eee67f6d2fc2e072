"""A state dict loads strictly into its author's class, built larger, or is refused with a remedy.

What is refused is grown again as the remedy says, and then loads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
from torch import Tensor, nn  # noqa: E402

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.frameworks import state_dict as keys  # noqa: E402
from tests.console import finished  # noqa: E402

Grow = Callable[[n2n.Model], n2n.Model]


class Mean(nn.Module):
    """A mean over units: no weight can make up for unequal copies."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(5, width), nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.a(x).relu().mean(-1, keepdim=True))


class Tied(nn.Module):
    """One matrix writes units and reads them, behind a ReLU."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.tied = nn.Linear(5, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(x).relu() @ self.tied.weight


class Scale(nn.Module):
    """One vector of ones at two places: it is one parameter, and stays one."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, width), nn.Linear(width, width)
        self.scale, self.out = nn.Parameter(torch.ones(width)), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.scale * self.b((self.scale * self.a(x)).relu()))


class Blocks(nn.Module):
    """Numbered residual blocks."""

    def __init__(self, count: int = 2) -> None:
        super().__init__()
        self.up, self.out = nn.Linear(5, 6), nn.Linear(6, 3)
        blocks = (nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6)) for _ in range(count))
        self.h = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        for block in self.h:
            x = x + block(x)
        return self.out(x)


def convolutions(width: int = 6) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 5)),
        nn.Conv1d(1, width, 3),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3 * width, 3),
    )


@dataclass(frozen=True)
class Case:
    """What grows how; what a refusal says, if any; how to grow instead; arguments of the class."""

    build: Callable[..., nn.Module]
    grow: Grow
    refusal: str | None
    instead: Grow
    sizes: tuple[int, ...]


def wider(name: str, width: int) -> Grow:
    return lambda model: n2n.widen(model, {name: width})


def copied(**options: Any) -> Grow:
    return lambda model: n2n.deepen(model, block="h.1", **options)


TO_12 = wider("a", 12)
CASES = {
    "a mean": Case(Mean, wider("a", 9), r"_shares: .*\n.*: widen a to 12, or leave", TO_12, (12,)),
    "above a multiple": Case(Mean, wider("a", 14), "widen a to 12 or 18, or", TO_12, (12,)),
    "one weight twice": Case(Tied, wider("tied", 9), "leave tied at 6; or", lambda m: m, (6,)),
    "one vector twice": Case(Scale, wider("a", 9), None, wider("a", 9), (9,)),
    "a new layer": Case(
        Blocks, lambda m: n2n.deepen(m, "h.0.0"), r"deeper.*weight.*\n.*--block", copied(), (3,)
    ),
    "a layer in a block that moved": Case(
        Blocks,
        lambda m: copied()(n2n.deepen(m, "h.1.0")),
        r"deeper.*weight.*\n.*--block",
        copied(copies=2),
        (4,),
    ),
    "copies without numbers": Case(
        Blocks, copied(renumber=False), r"_copy1.*\n.*numbered", copied(), (3,)
    ),
    "a convolution": Case(convolutions, wider("1", 9), None, wider("1", 9), (9,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_state_dict_loads_strictly_or_says_what_would(name: str) -> None:
    case, x = CASES[name], torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    module = case.build().eval()
    model = n2n.from_torch(module, x)
    if case.refusal:
        with pytest.raises(n2n.Refused, match=r"(?s)no such keys.*to_torch") as caught:
            n2n.state_dict(case.grow(model))
        assert caught.match(case.refusal)
    larger = case.build(*case.sizes).eval()
    larger.load_state_dict(n2n.state_dict(case.instead(model)), strict=True)
    assert torch.allclose(larger(x), module(x), atol=1e-5)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refusal])
def test_without_the_check_it_would_not_load(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: nobody asks what growing added."""
    monkeypatch.setattr(keys, "_check_keys", lambda model, by_value: None)
    case, x = CASES[name], torch.randn(4, 5)
    module = case.build().eval()
    grown = case.grow(n2n.from_torch(module, x))
    larger = case.build(*case.sizes).eval()
    with pytest.raises((RuntimeError, AssertionError)):
        larger.load_state_dict(n2n.state_dict(grown), strict=True)
        assert torch.allclose(larger(x), module(x), atol=1e-5)


def test_the_command_says_the_same(tmp_path: Any) -> None:
    model = n2n.widen(n2n.from_torch(Mean().eval(), torch.randn(2, 5)), {"a": 9})
    model.save(tmp_path / "grown.onnx")
    target = tmp_path / "grown.safetensors"
    done = finished("export", tmp_path / "grown.onnx", "--to", "safetensors", "-o", target)
    assert done.code == 1 and "widen a to 12, or leave it at 6" in done.err, done
    assert not target.exists()
    with pytest.raises(n2n.Refused, match="no such keys"):
        n2n.save_safetensors(model, target, Mean(), model)
