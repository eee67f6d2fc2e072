"""Train in several processes, sharded by fully_shard; grow from a checkpoint, and train on.

    torchrun --nproc-per-node 2 tests/experiments/loop_fsdp.py [--smoke]

Every process holds its shards of both modules and of both optimizers. The larger module begins from
what torch.distributed.checkpoint saved of the smaller one, and is saved the same way.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

import onnx_net2net as n2n

LENGTH = 16
Training = tuple[nn.Module, torch.optim.Optimizer]


class Counter(nn.Module):
    """An encoder of bits that says at each how many ones there are up to it."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(2, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(width)
        self.encoder = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(width, LENGTH + 1)

    def forward(self, bits: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(bits)))


def sharded(width: int, heads: int, layers: int, rate: float) -> Training:
    """Return a network of which each process holds a part, and its optimizer."""
    torch.manual_seed(0)
    module = Counter(width, heads, layers)
    for block in module.encoder.layers:
        fully_shard(block)
    return fully_shard(module), torch.optim.AdamW(module.parameters(), lr=rate)


def loss_of(module: nn.Module, bits: Tensor) -> Tensor:
    counts = bits.cumsum(1)
    return nn.functional.cross_entropy(module(bits).flatten(0, 1), counts.flatten())


def train(training: Training, steps: int) -> None:
    """Train on what only this process draws."""
    module, optimizer = training
    chance = torch.Generator().manual_seed(dist.get_rank())
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(module, torch.randint(2, (32, LENGTH), generator=chance)).backward()
        optimizer.step()


def say(what: str, training: Training) -> None:
    bits = torch.randint(2, (256, LENGTH), generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        loss = loss_of(training[0], bits)
    if dist.get_rank() == 0:
        print(f"{what}: {loss:.4f}")


def save(training: Training, folder: Path) -> None:
    module, optimizer = get_state_dict(*training)
    dcp.save({"module": module, "optimizer": optimizer}, checkpoint_id=folder)


def load(training: Training, folder: Path) -> None:
    module, optimizer = get_state_dict(*training)
    state = {"module": module, "optimizer": optimizer}
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(*training, model_state_dict=state["module"], optim_state_dict=state["optimizer"])


def main(steps: int, folder: Path) -> None:
    training = sharded(24, 2, 1, 3e-3)
    train(training, steps)
    say("small", training)
    save(training, folder / "small")

    small, large = sharded(24, 2, 1, 3e-3), sharded(36, 3, 2, 2e-3)
    load(small, folder / "small")
    bits = torch.randint(2, (2, LENGTH))
    report = n2n.transfer(small[0], large[0], bits, optimizer=small[1], large_optimizer=large[1])
    if dist.get_rank() == 0:
        print(report)
    say("grown", large)
    train(large, steps)
    say("trained", large)
    save(large, folder / "large")

    later = sharded(36, 3, 2, 2e-3)
    load(later, folder / "large")
    report.apply_settings(later[0])
    say("loaded", later)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few steps only")
    steps = 10 if parser.parse_args().smoke else 300
    dist.init_process_group("gloo")
    with tempfile.TemporaryDirectory() as temporary:
        folders = [temporary]
        dist.broadcast_object_list(folders)  # all write where the first one says
        main(steps, Path(folders[0]))
        dist.barrier()
    dist.destroy_process_group()
