"""What the gradient says of units that are not there yet (GradMax: Evci et al., ICLR 2022).

Let G be the gradient of a linear map, still zero, from the input of an MLP to its output. New units
without incoming weights that are read with the weights W get the gradient W'G for these, times the
slope of the activation at zero. The largest singular values of G say how much a block would learn
from more units, its singular vectors how to read them.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from growing import Build, Origin, scratch, widen
from torch import Generator, Tensor
from training import Start, cross_entropy

import onnx_net2net as n2n

BATCHES = 32


def bypasses(origin: Origin, build: Build) -> tuple[Tensor, ...]:
    """Return G of each block of the teacher, a matrix of outputs by inputs."""
    module = build()
    module.load_state_dict(n2n.state_dict(origin.model))
    width = module.head.in_features
    maps = [torch.zeros(width, width, requires_grad=True) for _ in module.h]
    for block, bypass in zip(module.h, maps, strict=True):
        seen: dict[str, Tensor] = {}
        block.up.register_forward_pre_hook(lambda _, x, seen=seen: seen.update(x=x[0]))
        block.down.register_forward_hook(
            lambda _, x, y, seen=seen, bypass=bypass: y + F.linear(seen["x"], bypass)
        )
    generator = Generator().manual_seed(origin.seed)
    losses = [cross_entropy(module, origin.data.draw(generator)) for _ in range(BATCHES)]
    return torch.autograd.grad(torch.stack(losses).mean(), maps)


def gradmax(origin: Origin, small: Build, build: Build) -> Start:
    """Begin as the teacher, with units in its MLPs whose gradient is as large as can be.

    They are read as strongly as the old units are, on average.
    """
    model = widen(origin, origin.model, build, split="fresh")
    start = scratch(origin, build)
    start.module.load_state_dict(n2n.state_dict(model))
    start.state = partial(origin.grown_state, model)
    gradients = bypasses(origin, small)
    with torch.no_grad():
        for block, gradient in zip(start.module.h, gradients, strict=True):
            readers = block.down.weight
            new = (readers == 0).all(0)
            vectors, values, _ = torch.linalg.svd(gradient)
            directions = (vectors * values)[:, : new.sum()]
            old = readers.norm() / (~new).sum().sqrt()
            readers[:, new] = directions * old * new.sum().sqrt() / directions.norm()
            block.up.weight[new] = 0
            block.up.bias[new] = 0
    return start
