"""Modules grow into larger ones of their class: by names and shapes, and in their own graphs."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

import onnx_net2net as n2n
from onnx_net2net.model.model import Model
from onnx_net2net.plan.like import Unreachable, parameters
from onnx_net2net.plan.settle import settle
from onnx_net2net.widening.dimensions import analyse

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")

CLASSES = {
    "GPT2": ("GPT2LMHeadModel", {"n_positions": 32, "use_cache": False}),
    "Llama": ("LlamaForCausalLM", {"max_position_embeddings": 32, "use_cache": False}),
    "Bert": ("BertForMaskedLM", {"max_position_embeddings": 32}),
    "ResNet": ("ResNetForImageClassification", {"layer_type": "basic"}),
    "ConvNext": ("ConvNextForImageClassification", {"num_stages": 2}),
    "ViT": ("ViTForImageClassification", {"image_size": 16, "patch_size": 8}),
}
IMAGES = {"ResNet", "ConvNext", "ViT"}


def exported(kind: str, **options: Any) -> Model:
    """A network of a class, with weights that are not those of a fresh one."""
    name, given = CLASSES[kind]
    more = {} if kind in IMAGES else {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0}
    config = getattr(hf, f"{kind}Config")(**given, **more, **options)
    torch.manual_seed(0)
    module = getattr(hf, name)(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter) / 10
    inputs = torch.randn(2, 3, 16, 16) if kind in IMAGES else torch.randint(0, 40, (2, 5))
    return n2n.from_torch(module, (inputs,))


def transformer(hidden: int, heads: int, inner: int, layers: int, **more: int) -> dict[str, int]:
    names = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers")
    return dict(zip(names, (hidden, heads, inner, layers), strict=True)) | more


def gpt2(hidden: int, heads: int, layers: int) -> dict[str, int]:
    return {"n_embd": hidden, "n_head": heads, "n_layer": layers}


def stages(widths: list[int], depths: list[int], **more: int) -> dict[str, Any]:
    return {"hidden_sizes": widths, "depths": depths, **more}


# Class, the smaller and the larger one, how many epsilons change, and how many scales.
PAIRS = {
    "more heads": ("GPT2", gpt2(32, 4, 1), gpt2(48, 6, 2), 5, 0),
    "larger heads": ("GPT2", gpt2(16, 2, 1), gpt2(32, 2, 2), 0, 4),
    "groups of heads": (
        "Llama",
        transformer(16, 4, 24, 1, num_key_value_heads=2),
        transformer(32, 8, 50, 2, num_key_value_heads=4),
        0,
        0,
    ),
    "norms behind sums": ("Bert", transformer(16, 2, 24, 1), transformer(32, 4, 40, 2), 0, 0),
    "stages": (
        "ResNet",
        stages([4, 6], [1, 2], embedding_size=4),
        stages([7, 12], [2, 3], embedding_size=7),
        0,
        0,
    ),
    "depthwise": ("ConvNext", stages([4, 6], [1, 1]), stages([8, 12], [1, 2]), 0, 0),
    "patches": ("ViT", transformer(16, 2, 24, 1), transformer(32, 4, 48, 2), 0, 0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_module_grows_into_a_larger_one(name: str) -> None:
    kind, smaller, wider, epsilons, scales = PAIRS[name]
    small, large = exported(kind, **smaller), exported(kind, **wider)
    grown = n2n.grow(small, like=large)
    shapes = [{n: m.weights[n].shape for n in parameters(analyse(m))} for m in (grown, large)]
    assert shapes[0] == shapes[1]
    assert n2n.verify(small, grown)
    settled = settle(grown, large)
    assert n2n.verify(small, settled.model, by_position=True)
    assert not n2n.verify(small, large, by_position=True), "or nothing was seen"
    assert (len(settled.epsilons), len(settled.scales)) == (epsilons, scales)


class Alternating(torch.nn.Module):
    """Blocks of which every second one reads its neighbours, as shifted windows do."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 6))
            for _ in range(blocks)
        )
        self.head = torch.nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        for number, block in enumerate(self.blocks):
            shift = number % 2
            y = block(torch.roll(x, shift, 1) if shift else x)
            x = x + (torch.roll(y, -shift, 1) if shift else y)
        return self.head(x)


def test_blocks_are_counted_in_a_part_that_has_a_number_itself() -> None:
    def stacked(count: int) -> Any:
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        encoder = torch.nn.TransformerEncoder(layer, count, enable_nested_tensor=False)
        return torch.nn.Sequential(torch.nn.Linear(5, 8), encoder).eval()

    torch.manual_seed(0)
    report = n2n.transfer(stacked(1), stacked(3), torch.randn(2, 4, 5))
    assert report.copies == [("1.layers.0", 2)]


class Normed(torch.nn.Module):
    """Norms behind sums, which no padding gets through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.inner = torch.nn.Linear(6, width), torch.nn.Linear(width, width)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(2))
        self.head = torch.nn.Linear(width, 3)

    def forward(self, x: Any) -> Any:
        x = self.norms[0](self.stem(x))
        return self.head(self.norms[1](x + self.inner(x)))


@cache
def plain(kind: type[torch.nn.Module], size: int) -> Model:
    return n2n.from_torch(kind(size).eval(), (torch.randn(2, 5, 6),))


@pytest.mark.parametrize(
    ("small", "large", "problem"),
    [
        ((Normed, 16), (Normed, 24), "the nearest are 32"),
        ((Alternating, 2), (Alternating, 1), "blocks' would shrink from 2 to 1 members"),
        ((Alternating, 1), (Normed, 16), "only the larger network has"),
    ],
)
def test_one_that_cannot_be_reached(small: Any, large: Any, problem: str) -> None:
    with pytest.raises(Unreachable, match=problem):
        n2n.grow(plain(*small), like=plain(*large))


@pytest.mark.parametrize("lengths", [(2, 4), (2, 5), (3, 5), (3, 4), (1, 4)], ids=str)
def test_blocks_that_alternate_stay_where_they_are_of_their_kind(lengths: tuple[int, int]) -> None:
    """Even copies of the two blocks of a network would move the second one to the third place."""
    small, large = (plain(Alternating, count) for count in lengths)
    settled = settle(n2n.grow(small, like=large), large)
    assert n2n.verify(small, settled.model, by_position=True)
