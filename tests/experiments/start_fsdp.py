"""Start from a grown checkpoint folder in several processes, none of which holds the whole model.

    onnx-net2net grow llama/ --params 2x --shards 1GB -o larger/
    torchrun --nproc-per-node 2 tests/experiments/start_fsdp.py larger/ [--steps 10] [--save PATH]

The class is built without memory and cut by fully_shard; each process then reads from the
safetensors files the slices that are its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import transformers
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def built(folder: Path) -> nn.Module:
    """Return the network in a folder, cut for all processes, without memory."""
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    for blocks in (part for part in module.modules() if isinstance(part, nn.ModuleList)):
        for block in blocks:
            fully_shard(block)
    return fully_shard(module)


def read(module: nn.Module, folder: Path) -> None:
    """Give this process its part, of which it reads the slices from the files."""
    module.to_empty(device="cpu")
    for part in module.modules():
        if any(True for _ in part.buffers(recurse=False)):
            module._init_weights(part)  # what no file holds, such as rotary frequencies
    reader = HuggingFaceStorageReader(str(folder))
    state = module.state_dict()
    held = reader.read_metadata().state_dict_metadata
    dcp.load({name: state[name] for name in held}, storage_reader=reader)


def loss_of(module: nn.Module, tokens: Tensor) -> Tensor:
    return module(input_ids=tokens, labels=tokens).loss


def memory(what: str) -> int:
    """Bytes that this process has ("VmRSS"), or has had at most ("VmHWM"), mapped ones included."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition(f"{what}:")[2].split()[0])


def main(folder: Path, steps: int, target: Path | None) -> None:
    rank = dist.get_rank()
    module = built(folder)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM counts from here
    before = memory("VmRSS")
    read(module, folder)
    module.eval()
    own = sum(p.to_local().nbytes for p in module.parameters() if isinstance(p, DTensor))
    total = sum(p.nbytes for p in module.parameters())
    more = memory("VmHWM") - before
    print(
        f"process {rank}: {own} of {total} bytes, at most {more} more in memory\n",
        end="",
        flush=True,
    )
    vocabulary = module.config.vocab_size
    tokens = torch.randint(vocabulary, (2, 16), generator=torch.Generator().manual_seed(7))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    with torch.no_grad():
        loss = loss_of(module, tokens)
    if rank == 0:
        print(f"started: {loss:.5f}", flush=True)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(module, tokens)
        loss.backward()
        optimizer.step()
    if rank == 0 and steps:
        print(f"trained: {loss:.5f}", flush=True)
    if target is not None:
        dcp.save(module.state_dict(), storage_writer=HuggingFaceStorageWriter(str(target)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    dist.init_process_group("gloo")
    main(options.folder, options.steps, options.save)
    dist.destroy_process_group()
