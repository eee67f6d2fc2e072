"""Neighbouring sizes in a model zoo's families: can the smaller one grow into the larger one?

    python tests/coverage/families.py tests/coverage/FAMILIES.md [PATTERN]

Both are exported (the larger one from the meta device, so without weights), the smaller one grows
to the shape of the larger one, and its weights are settled in the larger one's own graph. ONNX
Runtime compares both with the smaller one. Pairs that are in the table already are left alone.
"""

from __future__ import annotations

import argparse
import re
import textwrap
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import onnxruntime
import randomise
import timm
import torch
import torchvision
from torch import nn

import onnx_net2net as n2n
from onnx_net2net.frameworks.state_dict import stored
from onnx_net2net.plan.like import Unreachable, difference
from onnx_net2net.plan.settle import settle
from onnx_net2net.plan.steps import follow

SIZE = 224
FAMILIES = {
    "torchvision": (
        "resnet18 resnet34 resnet50 resnet101 resnet152",
        "resnet50 wide_resnet50_2 wide_resnet101_2",
        "resnext50_32x4d resnext101_32x8d",
        "vgg11 vgg13 vgg16 vgg19",
        "densenet121 densenet169 densenet201",
        "mobilenet_v3_small mobilenet_v3_large",
        "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5",
        "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3",
        "efficientnet_b0 efficientnet_b1 efficientnet_b2",
        "regnet_y_400mf regnet_y_800mf regnet_y_1_6gf",
        "convnext_tiny convnext_small",
        "swin_t swin_s",
        "vit_b_16 vit_l_16",
    ),
    "timm": (
        "vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224",
        "deit_tiny_patch16_224 deit_small_patch16_224 deit_base_patch16_224",
        "convnext_atto convnext_femto convnext_pico convnext_nano convnext_tiny",
        "mobilenetv2_100 mobilenetv2_140",
        "mixer_s16_224 mixer_b16_224",
        "poolformer_s12 poolformer_s24 poolformer_s36",
        "resmlp_12_224 resmlp_24_224",
        "xcit_nano_12_p16_224 xcit_tiny_12_p16_224",
    ),
}


def build(library: str, name: str) -> nn.Module:
    """Return a network with the weights of its birth, in evaluation mode."""
    if library == "timm":
        return timm.create_model(name, pretrained=False).eval()
    return torchvision.models.get_model(name, weights=None).eval()


def verdict(library: str, small: str, large: str) -> str:
    """Say "exact", or why not."""
    torch.manual_seed(0)
    image = torch.randn(2, 3, SIZE, SIZE)
    network = build(library, small)
    generator = torch.Generator().manual_seed(0)
    randomise.randomise_constants(network, generator)
    randomise.measure_batchnorm(network, image, generator)
    model = n2n.from_torch(network, image, unread=False)
    empty = build(library, large)  # some classes cannot be built on the meta device
    for part in empty.modules():
        for key, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[key] = nn.Parameter(parameter.to("meta"))
    try:
        target = n2n.from_torch(empty, image, unread=False)
        grown = follow(model, difference(model, target)).model
        settled = settle(grown, target, stored(target))
    except n2n.Net2NetError as error:
        return why(error)
    for what, other in (("grown", grown), ("settled", settled.model)):
        report = n2n.verify(model, other, seeds=1, by_position=True)
        if not report:
            return f"WRONG, {what}: {report.verdict}"
    return "exact"


def why(error: n2n.Net2NetError) -> str:
    """Return the first obstacle on one line, and how many there are besides."""
    obstacles = error.obstacles if isinstance(error, Unreachable) else [str(error)]
    first = textwrap.shorten(obstacles[0], 160, placeholder=" ...").replace("|", "/")
    return f"{first} (and {len(obstacles) - 1} more)" if len(obstacles) > 1 else first


def pairs() -> Iterator[tuple[str, str, str]]:
    """Yield library, smaller and larger network."""
    for library, families in FAMILIES.items():
        for family in families:
            names = family.split()
            for small, large in pairwise(names):
                yield library, small, large


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("pattern", nargs="?", default="")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    lines = options.table.read_text().splitlines() if options.table.exists() else []
    known = dict(re.findall(r"^(\| \w+ \| \w+ \| \w+ \|)(.*)$", "\n".join(lines), re.MULTILINE))
    versions = ", ".join(
        f"{package.__name__} {package.__version__}"
        for package in (torch, torchvision, timm, onnxruntime)
    )
    head = f"""# Neighbouring sizes of families

Written by `tests/coverage/families.py`: the smaller network, with random weights and images of
{SIZE} pixels, grown into the larger one's class. {versions}; 2 cores of a virtual x86-64 machine.

| library | smaller | larger | result |
| --- | --- | --- | --- |
"""
    for library, small, large in pairs():
        key = f"| {library} | {small} | {large} |"
        if key not in known and re.search(options.pattern, f"{small} {large}"):
            start = time.monotonic()
            known[key] = f" {verdict(library, small, large)} |"
            print(key, known[key], f"{time.monotonic() - start:.0f} s", flush=True)
            order = [f"| {a} | {b} | {c} |" for a, b, c in pairs()]
            body = "".join(f"{k}{known[k]}\n" for k in order if k in known)
            options.table.write_text(head + body)


if __name__ == "__main__":
    main()
