"""The detection models of torchvision: built with random weights that detect something."""

from __future__ import annotations

from typing import Any

import randomise
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

SIZE = 320
# Fewer regions than by default: they change what is computed, not which operators do it.
FEWER = {"rpn_post_nms_top_n_test": 100, "box_detections_per_img": 20}


def build(name: str) -> nn.Module:
    """Return the network for images of about 320 pixels, in evaluation mode."""
    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    if not name.startswith("ssd"):  # they resize to a size of their own
        options |= {"min_size": SIZE, "max_size": SIZE}
    if "rcnn" in name:
        options |= FEWER
    return torchvision.models.get_model(name, **options).eval()


def image(generator: torch.Generator) -> list[Tensor]:
    """Return one random image, as these networks take it."""
    return [torch.rand(3, SIZE, SIZE, generator=generator)]


def randomise_all(name: str, model: nn.Module, generator: torch.Generator) -> tuple[int, int]:
    """Give ``model`` scores that differ; return how many constants and BatchNorms changed.

    At birth the heads say the same of every region, and no score passes its threshold.
    """
    for path, parameter in model.named_parameters():
        if not path.startswith("backbone"):
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, generator=generator)
            elif path.endswith("bias"):
                nn.init.zeros_(parameter)
    constants = randomise.randomise_constants(model, generator)
    images = [torch.rand(3, SIZE, SIZE, generator=generator) for _ in range(2)]
    norms = randomise.measure_batchnorm(model, images, generator)
    if "ssd" not in name and not name.endswith("v2"):
        freeze(model)
    return constants, norms


def freeze(model: nn.Module) -> None:
    """Freeze the BatchNorms below ``model``, as in the pretrained networks of the first version."""
    for module in list(model.modules()):
        for name, norm in list(module.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
                state = norm.state_dict()
                state.pop("num_batches_tracked")
                frozen.load_state_dict(state)
                setattr(module, name, frozen)
