"""Give a freshly built network parameters that no accident makes trivial.

A new network is full of zeros and ones: biases, BatchNorm statistics, LayerScale, residual gates.
Growing such a network wrongly can go unnoticed, because whole branches multiply to nothing. Here
every constant tensor becomes random, and BatchNorm's statistics are measured, then disturbed, so
that activations keep their scale through any depth.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def _is_constant(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and bool((tensor == tensor.flatten()[0]).all())


def randomise_constants(model: nn.Module, generator: torch.Generator) -> int:
    """Replace every parameter whose entries are all equal; return how many there were."""
    replaced = 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() == 0 or not _is_constant(parameter):
                continue
            value = float(parameter.flatten()[0])
            uniform = torch.rand(parameter.shape, generator=generator)
            if value == 0.0:
                parameter.copy_((uniform - 0.5) * 0.2)
            elif abs(value) < 1e-2:  # LayerScale at birth: large enough to be seen in the output
                parameter.copy_(0.1 + 0.2 * uniform)
            else:
                parameter.copy_(value * (0.7 + 0.6 * uniform))
            replaced += 1
    return replaced


def measure_batchnorm(model: nn.Module, inputs: torch.Tensor, generator: torch.Generator) -> int:
    """Set BatchNorm statistics to those of `inputs`, disturbed; return the number of layers."""
    layers = [
        m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.train()
        layer.momentum = 1.0  # one batch replaces the statistics
    try:
        with torch.no_grad():
            model(inputs)
    except (RuntimeError, ValueError):
        pass  # e.g. one value per channel: what was measured so far is kept, the rest disturbed
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.eval()
        layer.momentum = momentum
        _disturb(layer, generator)
    return len(layers)


def _disturb(layer: _BatchNorm, generator: torch.Generator) -> None:
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None and variance is not None
    variance.nan_to_num_(1.0, posinf=1.0).clamp_(min=1e-4)
    variance.clamp_(min=float(variance.mean()) * 0.05)
    noise = torch.rand(mean.shape, generator=generator) - 0.5
    mean.nan_to_num_(0.0).add_(noise * variance.sqrt() * 0.5)
    variance.mul_(0.7 + 0.6 * torch.rand(variance.shape, generator=generator))
