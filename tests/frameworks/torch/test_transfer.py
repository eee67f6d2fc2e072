"""Trained modules written into larger ones of their class, in place."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
from torch import Tensor, nn  # noqa: E402

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.frameworks.torch import transfer as target  # noqa: E402
from onnx_net2net.frameworks.transfer import Transferred  # noqa: E402

Build = Callable[[], nn.Module]


class Basic(nn.Module):
    """A residual block of two convolutions, which may change width and size."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.down = nn.Identity()
        if stride != 1:
            conv = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.down = nn.Sequential(conv, nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


class ResNet(nn.Module):
    """Two stages of residual blocks."""

    def __init__(self, widths: tuple[int, int] = (6, 9), depths: tuple[int, int] = (1, 2)) -> None:
        super().__init__()
        first, second = widths
        self.stem = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(first)
        self.layer1 = nn.Sequential(*(Basic(first, first) for _ in range(depths[0])))
        blocks = (Basic(second, second) for _ in range(depths[1] - 1))
        self.layer2 = nn.Sequential(Basic(first, second, 2), *blocks)
        self.fc = nn.Linear(second, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(torch.relu(self.bn(self.stem(x)))))
        return self.fc(x.mean((2, 3)))


class Encoder(nn.Module):
    """PyTorch's own transformer, whose attention draws random numbers in training."""

    def __init__(self, width: int = 16, heads: int = 2, hidden: int = 24, depth: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, hidden, batch_first=True, norm_first=True, dropout=0.1
        )
        norm = nn.LayerNorm(width)
        self.layers = nn.TransformerEncoder(layer, depth, norm, enable_nested_tensor=False)
        self.head = nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(x)))


def mlp(width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 4))


def of_transformers(name: str, **sizes: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config, _, head = name.partition(" ")
    cls = getattr(transformers, f"{config}{head}")
    return cls(getattr(transformers, f"{config}Config")(**sizes))


def gpt2(width: int, heads: int, depth: int) -> nn.Module:
    return of_transformers(
        "GPT2 LMHeadModel", n_embd=width, n_head=heads, n_layer=depth, vocab_size=60,
        n_positions=32, use_cache=False, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def llama(width: int, hidden: int, heads: int, depth: int) -> nn.Module:
    return of_transformers(
        "Llama ForCausalLM", hidden_size=width, intermediate_size=hidden, num_hidden_layers=depth,
        num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=8, vocab_size=60,
        max_position_embeddings=32, use_cache=False, tie_word_embeddings=True,
    )  # fmt: skip


def bert(width: int, hidden: int, heads: int, depth: int) -> nn.Module:
    return of_transformers(
        "Bert ForMaskedLM", hidden_size=width, intermediate_size=hidden, num_hidden_layers=depth,
        num_attention_heads=heads, vocab_size=60, max_position_embeddings=32,
    )  # fmt: skip


def vit(width: int, hidden: int, heads: int, depth: int) -> nn.Module:
    return of_transformers(
        "ViT ForImageClassification", hidden_size=width, intermediate_size=hidden,
        num_hidden_layers=depth, num_attention_heads=heads, image_size=32, patch_size=8,
        num_labels=10,
    )  # fmt: skip


def tokens(name: str | None = "input_ids") -> Any:
    ids = torch.randint(0, 50, (2, 7))
    return {name: ids} if name else ids


def pixels() -> Any:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


# The smaller module, the larger one, inputs, and how many numbers change on modules.
CASES: dict[str, tuple[Build, Build, Callable[[], Any], int]] = {
    "mlp": (mlp, lambda: mlp(24), lambda: torch.randn(3, 8), 0),
    "resnet": (ResNet, lambda: ResNet((8, 14), (2, 3)), lambda: torch.randn(4, 3, 12, 12), 0),
    "encoder": (Encoder, lambda: Encoder(24, 3, 40, 3), lambda: tokens(None), 7),
    "gpt2": (lambda: gpt2(32, 4, 1), lambda: gpt2(48, 6, 2), tokens, 6),
    "llama": (lambda: llama(32, 48, 4, 1), lambda: llama(48, 64, 6, 2), tokens, 6),
    "bert": (lambda: bert(32, 40, 2, 1), lambda: bert(64, 60, 4, 2), tokens, 0),
    "vit, larger heads": (lambda: vit(16, 24, 2, 1), lambda: vit(36, 40, 3, 2), pixels, 6),
}


def made(name: str) -> tuple[nn.Module, nn.Module, Any]:
    torch.manual_seed(0)
    small, large, examples, _ = CASES[name]
    return small(), large(), examples()


def called(module: nn.Module, x: Any) -> Tensor:
    y = module(**x) if isinstance(x, dict) else module(x)
    return getattr(y, "logits", y)


def adam(module: nn.Module) -> torch.optim.Optimizer:
    named = list(module.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for _, p in named if p.ndim < 2], "lr": 2e-3},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, amsgrad=True)


def step(module: nn.Module, optimizer: torch.optim.Optimizer, x: Any) -> float:
    loss = called(module, x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Grown(NamedTuple):
    """Two modules of which the second has gone on from the first, which was trained."""

    small: nn.Module
    large: nn.Module
    x: Any
    old: torch.optim.Optimizer
    new: torch.optim.Optimizer
    report: Transferred


@cache
def transferred(name: str) -> Grown:
    """One case, once for all tests; nothing but what is written to has changed."""
    small, large, x = made(name)
    old, new = adam(small.train()), adam(large)
    for _ in range(3):
        step(small, old, x)
    before, modes = state_of(small), [part.training for part in large.modules()]
    addresses = {n: p.data_ptr() for n, p in large.named_parameters(remove_duplicate=False)}

    report = n2n.transfer(small, large, x, optimizer=old, large_optimizer=new)

    assert equal(state_of(small), before) and all(part.training for part in small.modules())
    assert [part.training for part in large.modules()] == modes
    now = {n: p.data_ptr() for n, p in large.named_parameters(remove_duplicate=False)}
    assert now == addresses, "written in place, ties kept"
    small.eval(), large.eval()
    return Grown(small, large, x, old, new, report)


@pytest.mark.parametrize("name", CASES)
def test_a_module_goes_on_as_a_larger_one(name: str) -> None:
    small, large, x, old, new, report = transferred(name)
    torch.testing.assert_close(called(large, x), called(small, x), rtol=1e-4, atol=1e-5)
    assert len(report.settings) == CASES[name][3] and not report.untouched
    if hasattr(large, "config"):  # saved and built again, it is the same
        again = type(large)(large.config).eval()
        again.load_state_dict(large.state_dict())
        assert torch.equal(called(again, x), called(large, x))
    assert all(buffer == 3 for n, buffer in large.named_buffers() if n.endswith("_tracked"))

    parameters = dict(large.named_parameters())
    stepped = {n: new.state[p]["step"].item() for n, p in parameters.items() if p in new.state}
    assert stepped.keys() == parameters.keys() - set(report.new)
    assert set(stepped.values()) == {3.0}
    losses = [step(large, new, x) for _ in range(3)]
    assert losses[0] == pytest.approx(step(small, old, x), rel=1e-3) and losses[1] != losses[0]
    assert {new.state[p]["step"].item() for n, p in parameters.items() if n in report.new} <= {3.0}
    check_masks(report, parameters, dict(small.named_parameters()))


def check_masks(
    report: Transferred, large: dict[str, nn.Parameter], small: dict[str, nn.Parameter]
) -> None:
    """What is not new is as much as there was."""
    for name, parameter in large.items():
        mask = report.mask(name)
        assert mask.shape == parameter.shape and mask.all() == (name in report.new)
    kept = sum(int((~report.mask(name)).sum()) for name in large)
    assert kept == sum(parameter.numel() for parameter in small.values())


def test_the_report_is_a_table_with_what_changed_beside_weights() -> None:
    text = re.sub(" +", " ", str(transferred("encoder").report))
    for line in (
        "16 -> 24",
        "layers.layers.0 2 x the block",
        "eps 1e-05 -> 6.66667e-06 of layers.",
        "24 new: ",
        "both modules agree: outputs differ by ",
        "not compared in training mode: it draws random numbers",
        "Adam's rate divided by the factor of the widths (1.67)",
    ):
        assert line in text
    assert "so they do in training mode" in str(transferred("resnet").report)
    assert "give both optimizers, or begin slowly" in str(n2n.transfer(*made("mlp")))


def test_masks_let_only_new_parts_train() -> None:
    report = transferred("mlp").report
    assert report.new == []
    mask = report.mask("0.weight")
    assert not mask[:16].any() and mask[16:].all()
    assert (report.mask("3.weight") == mask[:, :1].T).all()
    with pytest.raises(n2n.UsageError, match="no parameter 'x'"):
        report.mask("x")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_type_and_frozen_parameters_of_the_larger_module_stay(dtype: torch.dtype) -> None:
    small, large, x = made("mlp")
    large = large.to(dtype)
    large[0].weight.requires_grad = False
    report = n2n.transfer(small, large, x)
    assert {p.dtype for p in large.parameters()} == {dtype}
    assert not large[0].weight.requires_grad and large[3].weight.requires_grad
    assert (report.difference > 1e-5) == (dtype != torch.float64)


def test_settings_go_into_another_instance() -> None:
    grown = transferred("encoder")
    large, x = grown.large, grown.x
    again = Encoder(24, 3, 40, 3)
    again.load_state_dict(large.state_dict())
    grown.report.apply_settings(again)
    assert torch.equal(called(again.eval(), x), called(large.eval(), x))


class Configured(nn.Module):
    """Norms that are built from one number, or one of them from another."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        last = nn.LayerNorm(config.width, getattr(config, "last", config.eps))
        self.layers = nn.Sequential(
            nn.Linear(4, config.width), nn.LayerNorm(config.width, config.eps), nn.ReLU(),
            nn.Linear(config.width, config.width), last, nn.Linear(config.width, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("more", [{}, {"last": 1e-5}, {"last": 1e-6}], ids=str)
def test_one_number_for_all_norms_goes_into_the_configuration(more: dict[str, float]) -> None:
    torch.manual_seed(0)
    sizes = ({"width": width, "eps": 1e-5, **more} for width in (16, 24))
    small, large = (Configured(SimpleNamespace(**numbers)) for numbers in sizes)
    report = n2n.transfer(small, large, x := torch.randn(3, 4))
    assert large.config.eps == pytest.approx(1e-5 if more else 1e-5 * 16 / 24)
    assert ("apply_settings" in str(report)) == bool(more)
    again = Configured(large.config)
    again.load_state_dict(large.state_dict())
    if more:
        report.apply_settings(again)
    assert torch.equal(called(again.eval(), x), called(large.eval(), x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
def test_growing_goes_on_from_what_grew() -> None:
    torch.manual_seed(0)
    x, module = torch.randn(3, 8), mlp(10)
    optimizer = adam(module)
    for width in (13, 20):
        step(module, optimizer, x)
        larger = mlp(width)
        new = adam(larger)
        both = {"optimizer": optimizer, "large_optimizer": new}
        n2n.transfer(nn.DataParallel(module), torch.compile(larger), x, **both)
        torch.testing.assert_close(larger.eval()(x), module.eval()(x), rtol=1e-4, atol=1e-6)
        module, optimizer = larger.train(), new
    assert {entry["step"].item() for entry in optimizer.state.values()} == {2.0}


class Unread(nn.Module):
    """A head that the network does not use in inference."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, width), nn.Linear(width, 3)
        self.aside, self.same = nn.Linear(width, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        y = torch.relu(self.up(x))
        z = self.down(y)
        return (z, self.aside(y), self.same(z)) if self.training else z


def test_what_no_output_reads_is_copied_or_named() -> None:
    torch.manual_seed(0)
    small, large, x = Unread(), Unread(12), torch.randn(3, 4)
    old, new = adam(small), adam(large)
    for parameter in small.parameters():
        parameter.grad = torch.randn(parameter.shape)
    old.step()
    report = n2n.transfer(small, large, x, optimizer=old, large_optimizer=new)
    assert report.untouched == ["aside.weight"]
    assert torch.equal(small.same.weight, large.same.weight)
    assert "in training mode they differ" in str(report)
    stateless = {n for n, p in large.named_parameters() if p not in new.state}
    assert stateless == {"aside.weight"}
    moments = [o.state[m.same.weight]["exp_avg"] for o, m in ((old, small), (new, large))]
    assert torch.equal(*moments)


def test_modules_of_one_size_are_copied() -> None:
    small, _, x = made("mlp")
    report = n2n.transfer(small, large := mlp(), x)
    assert equal(state_of(small), state_of(large)) and not report.widths and not report.new


class Attention(nn.Module):
    """Heads whose products are divided by a number that their size decides."""

    def __init__(self, heads: int = 2, size: int = 4) -> None:
        super().__init__()
        self.shape, self.scale = (heads, size), size**-0.5
        self.q, self.k, self.v = (nn.Linear(8, heads * size) for _ in range(3))
        self.out = nn.Linear(heads * size, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, self.shape).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = torch.softmax(q @ k.transpose(-1, -2) * self.scale, -1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def test_a_number_that_a_size_decides_is_made_up_for_in_weights_and_moments() -> None:
    torch.manual_seed(0)
    small, large, x = (
        Attention(),
        Attention(size=6),
        torch.randn(3, 5, 8),
    )
    old, new = (torch.optim.SGD(m.parameters(), lr=0.0, momentum=0.9) for m in (small, large))
    step(small, old, x)
    report = n2n.transfer(small, large, x, optimizer=old, large_optimizer=new)
    assert "0.408248 in place of 0.5" in str(report)
    assert large.scale == 6**-0.5, "the class has its own number"
    moved = {n: new.state[p]["momentum_buffer"].clone() for n, p in large.named_parameters()}
    step(large, new, x)
    for name, parameter in large.named_parameters():
        if name[0] in "qk":
            torch.testing.assert_close(moved[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_tables_that_a_size_decides_are_refused() -> None:
    """Copies of a rotary pair turn as fast as the pair; a larger head turns more slowly."""
    small = llama(16, 24, 2, 1)
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**{**small.config.to_dict(), "head_dim": 16})
    refused(small, transformers.LlamaForCausalLM(config), tokens(), "rotary_emb: ")


# ---- nothing is written where something does not fit ------------------------------------------


def refused(small: nn.Module, large: nn.Module, x: Any, match: str, **more: Any) -> str:
    """The refusal's text; ``large`` must be as it was."""
    before, settings = state_of(large), str(large)
    with pytest.raises(n2n.Net2NetError, match=match) as caught:
        n2n.transfer(small, large, x, **more)
    assert equal(state_of(large), before) and str(large) == settings
    return str(caught.value)


def test_all_obstacles_are_named_at_once() -> None:
    small, _, x = made("mlp")
    large = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 5))
    text = refused(small, large, x, "2 obstacles")
    assert "from 16 to 12" in text and "4" in text and "5" in text


class Functional(nn.Module):
    """A norm whose epsilon is no module's attribute."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 3)
        self.scale, self.bias = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = nn.functional.layer_norm(x, (len(self.scale),), self.scale, self.bias, 1e-5)
        return self.last(x)


class Buffered(nn.Module):
    """A table of whole numbers that depends on nothing that grows."""

    def __init__(self, width: int = 8, first: int = 0) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, width), nn.Linear(width, 4)
        self.register_buffer("order", torch.arange(first, first + 4) % 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x[:, self.order])))


def test_an_epsilon_that_no_attribute_holds_is_refused() -> None:
    x = torch.randn(3, 4)
    text = refused(Functional(), Functional(11), x, "epsilon 7.27")
    assert "attribute" in text
    n2n.transfer(Functional(), Functional(16), x)


def test_tables_of_another_order_are_refused() -> None:
    x = torch.randn(3, 4)
    n2n.transfer(Buffered(), Buffered(12), x)
    refused(Buffered(), Buffered(12, first=1), x, "1, 2, 3, .* in place of 0, 1, 2")


def normed(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 3))


def test_wrong_weights_are_seen_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large, x = normed(8), normed(12), torch.randn(3, 4)
    old, new = adam(small), adam(large)
    step(small, old, x)
    take = target.Fitted._take

    def wrong(self: Any, key: str, name: str, tensor: Tensor) -> None:
        take(self, key, name, tensor)
        if key == "2.bias":
            value = self.values[key]
            self.values[key] = lambda: value() + torch.linspace(0, 1e-2, len(value()))

    monkeypatch.setattr(target.Fitted, "_take", wrong)
    refused(small, large, x, "as it was", optimizer=old, large_optimizer=new)
    assert not new.state
    assert large[1].eps == 1e-5


def test_a_wrong_epsilon_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large, x = normed(8), normed(12), torch.randn(3, 4)
    monkeypatch.setattr(target.Fitted, "_set", lambda *_: None)
    with torch.no_grad():
        for parameter in small[0].parameters():
            parameter.mul_(1e-2)
    refused(small, large, x, "as it was")


def test_optimizers_that_do_not_belong_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is exported."""
    monkeypatch.delattr(target, "from_torch")
    small, large, x = made("mlp")
    sgd = torch.optim.SGD(large.parameters(), lr=0.1)
    both = {"optimizer": adam(small), "large_optimizer": sgd}
    refused(small, large, x, "AdamW and SGD", **both)
    refused(small, large, x, "one optimizer alone", optimizer=adam(small))
    plain = torch.optim.AdamW(large.parameters())
    refused(small, large, x, "amsgrad", **both | {"large_optimizer": plain})
    other = adam(mlp(24))
    refused(small, large, x, "not the larger module's", **both | {"large_optimizer": other})
    rprops = [torch.optim.Rprop(module.parameters()) for module in (small, large)]
    step(small, rprops[0], x)
    both = {"optimizer": rprops[0], "large_optimizer": rprops[1]}
    refused(small, large, x, "not known to follow the gradient", **both)


def test_what_is_no_pair_of_modules_is_refused() -> None:
    small, large, x = made("mlp")
    with pytest.raises(n2n.UsageError, match="no PyTorch module"):
        n2n.transfer(small, {}, x)
    with pytest.raises(n2n.UsageError, match="share parameters"):
        n2n.transfer(small, small, x)
    with pytest.raises(n2n.UsageError, match=r"no contents \(meta\)"):
        n2n.transfer(small, large.to("meta"), x)


class Labelled(nn.Module):
    """A module that says something of itself beside tensors, and wants labels in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, width), nn.Linear(width, 4)

    def get_extra_state(self) -> Any:
        return {"release": 2}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"release": 2}

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None or not self.training, "labels are needed"
        return self.b(torch.relu(self.a(x)))


def test_state_that_is_no_tensor_and_training_that_wants_labels_do_no_harm() -> None:
    report = n2n.transfer(Labelled(8), Labelled(12), torch.randn(3, 8))
    assert report.difference < 1e-5
    assert report.training == "not compared in training mode: labels are needed"


class Shared(nn.Module):
    """Two layers whose first part is one module, and tied embeddings."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        up = nn.Linear(8, inside)
        self.layers = nn.ModuleList(
            nn.Sequential(up, nn.ReLU(), nn.Linear(inside, 8)) for _ in range(2)
        )
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def test_a_part_of_two_names_keeps_its_parameters_and_their_moments() -> None:
    small, large = Shared(12), Shared(20)
    optimizers = [torch.optim.Adam(module.parameters()) for module in (small, large)]
    x = torch.randint(0, 10, (3, 4))
    small(x).square().mean().backward()
    optimizers[0].step()
    before = {n: (p, p.detach().clone()) for n, p in small.named_parameters()}
    own = [*large.parameters()]
    n2n.transfer(small, large, x, optimizer=optimizers[0], large_optimizer=optimizers[1])
    assert all(mine is now for mine, now in zip(own, large.parameters(), strict=True))
    for name, parameter in small.named_parameters():
        assert parameter is before[name][0] and torch.equal(parameter, before[name][1])
    assert all(optimizers[1].state[parameter] for parameter in large.parameters())
    assert (large(x) - small(x)).abs().max() < 1e-5


def test_an_optimizer_that_fails_late_is_as_it_was() -> None:
    """Whatever is raised once its state has been loaded: weights and state come back."""
    small, large = (
        nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4)) for width in (16, 24)
    )
    optimizer, larger = (torch.optim.Adam(module.parameters()) for module in (small, large))
    small(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    planted = [RuntimeError("planted")]

    def fail(_: Any) -> None:
        if planted:
            raise planted.pop()

    larger.register_load_state_dict_post_hook(fail)
    before = large[0].weight.clone()
    with pytest.raises(RuntimeError, match="planted"):
        n2n.transfer(small, large, torch.randn(2, 8), optimizer=optimizer, large_optimizer=larger)
    assert torch.equal(large[0].weight, before) and not larger.state
