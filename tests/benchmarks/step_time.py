"""A training step of the imported module against the author's own module: ratios in one run.

    python tests/benchmarks/step_time.py [resnet bert gpt2 llama]

Forward, backward and the mean square of the outputs as loss; no dropout. Both modules hold the
same weights and read the same batch; they take turns, and the median of each counts.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from onnx_net2net.frameworks.torch import to_torch
from onnx_net2net.frameworks.torch.exporter import from_torch

ROUNDS = 15
Made = tuple[nn.Module, tuple[torch.Tensor, ...]]


class Logits(nn.Module):
    """Gives the first tensor of a model of the transformers package."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of token ids."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "return_dict": True}
        return self.model(**given)[0]


def tokens(vocabulary: int, batch: int = 4, length: int = 128) -> tuple[torch.Tensor, ...]:
    """Token ids and a mask that hides nothing."""
    ids = torch.randint(vocabulary, (batch, length))
    return ids, torch.ones_like(ids)


def resnet() -> Made:
    """The residual network of the fixtures, at the widths of ResNet-18's first stages."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "fixtures" / "makers"))
    import networks

    block = networks.BasicBlock
    layers = [block(64, 64, 64), block(64, 64, 64), block(64, 128, 128, 2), block(128, 128, 128)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 100)]
    return nn.Sequential(*stem, *layers, *head), (torch.randn(4, 3, 96, 96),)


def bert() -> Made:
    """BERT of four layers."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=1000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=1024, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return Logits(BertForSequenceClassification(config)), tokens(1000)


def gpt2() -> Made:
    """GPT-2 of four layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=1000, n_embd=256, n_layer=4, n_head=4, n_positions=256,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    return Logits(GPT2LMHeadModel(config)), tokens(1000)


def llama() -> Made:
    """Llama of four layers, two query heads for each key head."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    return Logits(LlamaForCausalLM(config)), tokens(1000)


NETWORKS: dict[str, Callable[[], Made]] = {
    "resnet": resnet, "bert": bert, "gpt2": gpt2, "llama": llama,
}  # fmt: skip


def step(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> float:
    """Seconds of the processor for one step."""
    started = time.process_time()
    module(*inputs).square().mean().backward()
    return time.process_time() - started


def measured(name: str) -> tuple[float, float]:
    """Median seconds of a step: the author's module, and the imported one."""
    torch.manual_seed(0)
    theirs, inputs = NETWORKS[name]()
    dynamic = [{0: "batch"} if x.is_floating_point() else {0: "batch", 1: "length"} for x in inputs]
    ours = to_torch(from_torch(theirs.eval(), inputs, dynamic=tuple(dynamic)))
    theirs.train()
    ours.train()
    for module in (theirs, ours):
        step(module, inputs)
    times = [(step(theirs, inputs), step(ours, inputs)) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times)


def main() -> None:
    """Print a line for each network."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| network | author's step, ms | imported / author's |")
    print("| --- | ---: | ---: |")
    for name in sys.argv[1:] or NETWORKS:
        theirs, ours = measured(name)
        print(f"| {name} | {theirs * 1e3:.1f} | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
