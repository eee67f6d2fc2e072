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

Training = tuple[nn.Module, torch.optim.Optimizer]


def encoder(width: int, heads: int, layers: int, rate: float) -> Training:
    """Return a sharded network, which counts ones, and its optimizer."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
    )
    network = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
    module = nn.Sequential(nn.Embedding(2, width), network, nn.Linear(width, 17))
    for block in network.layers:
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
        loss_of(module, torch.randint(2, (32, 16), generator=chance)).backward()
        optimizer.step()


def say(what: str, training: Training) -> None:
    bits = torch.randint(2, (256, 16), generator=torch.Generator().manual_seed(99))
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
    training = encoder(24, 2, 1, 3e-3)
    train(training, steps)
    say("small", training)
    save(training, folder / "small")

    small, large = encoder(24, 2, 1, 3e-3), encoder(36, 3, 2, 2e-3)
    load(small, folder / "small")
    report = n2n.transfer(
        small[0], large[0], torch.randint(2, (2, 16)), optimizer=small[1], large_optimizer=large[1]
    )
    if dist.get_rank() == 0:
        print(report)
    say("grown", large)
    train(large, steps)
    say("trained", large)
    save(large, folder / "large")

    later = encoder(36, 3, 2, 2e-3)
    load(later, folder / "large")
    report.apply_settings(later[0])
    say("loaded", later)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few steps only")
    parser.add_argument("--folder", type=Path, help="where checkpoints go; a temporary one")
    options = parser.parse_args()
    dist.init_process_group("gloo")
    folders = [options.folder or Path(tempfile.mkdtemp())]
    dist.broadcast_object_list(folders)
    main(10 if options.smoke else 300, folders[0])
    dist.destroy_process_group()
