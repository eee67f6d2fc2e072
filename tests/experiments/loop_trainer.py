"""Train GPT-2 with the Trainer of transformers, grow it, and train the larger one on.

    python tests/experiments/loop_trainer.py [--smoke]

Needs transformers and accelerate. The optimizer's state goes along; the second Trainer keeps an
optimizer that it has. Text is a module of Python's own library, a character a token.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch.utils.data import Dataset, random_split
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import onnx_net2net as n2n

LENGTH, CHARACTERS = 32, 128


def text() -> Dataset:
    """Return pieces of one length, as a Trainer takes them."""
    codes = Path(argparse.__file__).read_text(encoding="utf-8").encode("ascii", "replace")
    pieces = torch.tensor(list(codes)).split(LENGTH)[:-1]
    return [{"input_ids": piece, "labels": piece} for piece in pieces]


def gpt2(width: int, heads: int, layers: int) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=width, n_head=heads, n_layer=layers, n_positions=LENGTH, vocab_size=CHARACTERS,
            bos_token_id=1, eos_token_id=1, use_cache=False,
        )
    )  # fmt: skip


def main(steps: int) -> None:
    pieces = text()
    train, valid = random_split(pieces, [0.9, 0.1], torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:

        def trainer(model: GPT2LMHeadModel, rate: float) -> Trainer:
            settings = TrainingArguments(
                folder, max_steps=steps, learning_rate=rate, per_device_train_batch_size=16,
                save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no", seed=0,
                use_cpu=True,
            )  # fmt: skip
            return Trainer(model, settings, train_dataset=train, eval_dataset=valid)

        torch.manual_seed(0)
        first = trainer(gpt2(32, 2, 2), 3e-3)
        first.train()
        print(f"small: {first.evaluate()['eval_loss']:.4f}")

        second = trainer(gpt2(48, 3, 4), 2e-3)
        inputs = torch.stack([pieces[i]["input_ids"][:20] for i in range(2)])
        report = n2n.transfer(
            first.model, second.model, {"input_ids": inputs},
            optimizer=first.optimizer, large_optimizer=second.create_optimizer(),
        )  # fmt: skip
        print(report)
        print(f"grown: {second.evaluate()['eval_loss']:.4f}")
        second.train()
        print(f"trained: {second.evaluate()['eval_loss']:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few steps only")
    main(20 if parser.parse_args().smoke else 1000)
