"""What the networks learn from, without a download: digits, and Python's own source code."""

from __future__ import annotations

import hashlib
import string
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import pi
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Data:
    """Random batches to train on, and two sets that are never trained on.

    Rates are chosen on ``valid`` and results are reported on ``test``. ``sizes`` are those of a
    batch, by the names that the exporter gives to dynamic dimensions.
    """

    draw: Callable[[Generator], Batch]
    valid: Batch
    test: Batch
    sizes: Mapping[str, int]
    digest: str

    @property
    def example(self) -> Tensor:
        """Return what a network is exported with."""
        return self.valid[0][:2]


def augmented(images: Tensor, generator: Generator) -> Tensor:
    """Rotate, scale, shear and shift images of 8 pixels onto 16 pixels, and add noise."""
    angle, shear, scale, *shifts, contrast = torch.rand(6, len(images), generator=generator) * 2 - 1
    angle, scale = angle * pi / 6, 1.15 * 1.25**scale
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    across, down = (0.25 * shift for shift in shifts)
    rows = [cosine, -sine + 0.3 * shear, across, sine, cosine, down]
    matrices = torch.stack(rows, 1).unflatten(1, (2, 3))
    grid = F.affine_grid(matrices, [len(images), 1, 16, 16], align_corners=False)
    result = F.grid_sample(images, grid, align_corners=False) * (1 + 0.3 * contrast).view(
        -1, 1, 1, 1
    )
    noise = torch.randn(result.shape, generator=generator)
    return result + 0.25 * noise


def cluttered(images: Tensor, generator: Generator) -> Tensor:
    """Augment images, and lay another one over each, at 70 % of its brightness."""
    others = images[torch.randperm(len(images), generator=generator)]
    layers = augmented(images, generator), 0.7 * (augmented(others, generator) + 1) - 1
    return torch.maximum(*layers).contiguous(memory_format=torch.channels_last)


@cache
def digits(batch: int = 32, share: float = 1.0) -> Data:
    """Return scikit-learn's 1,797 handwritten digits: half to train on, a quarter each to judge.

    Every batch is augmented anew, and what is to be told is the brighter of two digits. The sets
    to judge hold two views of each of their images. Only the first ``share`` of the images to train
    on is used.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    generator = Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    images, labels = images[order], torch.tensor(labels)[order]
    half, quarter = len(images) // 2, len(images) // 4
    train = slice(0, half)
    valid, test = slice(half, half + quarter), slice(half + quarter, None)

    def draw(generator: Generator) -> Batch:
        index = torch.randint(round(train.stop * share), (batch,), generator=generator)
        return cluttered(images[index], generator), labels[index]

    def views(part: slice) -> Batch:
        return cluttered(images[part].repeat(2, 1, 1, 1), generator), labels[part].repeat(2)

    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()[:16]
    return Data(draw, views(valid), views(test), {"batch": batch}, digest)


ALPHABET = "\n" + string.printable[:95]  # the visible characters and the space


@cache
def characters(batch: int = 8, context: int = 64) -> Data:
    """Return the source code of Python's standard library, character by character.

    A tenth of its files each is kept to choose rates on and to judge.
    """
    folder, digest = Path(sysconfig.get_path("stdlib")), hashlib.sha256()
    texts: list[list[str]] = [[], [], []]
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        digest.update(text.encode())
        texts[max(0, hashlib.sha256(path.name.encode()).digest()[0] % 10 - 7)].append(text)
    codes = {character: code for code, character in enumerate(ALPHABET)}
    train, valid, test = (
        torch.tensor([codes[c] for c in "\n".join(part) if c in codes]) for part in texts
    )

    def windows(text: Tensor, starts: Tensor) -> Batch:
        index = starts[:, None] + torch.arange(context + 1)
        return text[index][:, :-1], text[index][:, 1:]

    def draw(generator: Generator) -> Batch:
        return windows(train, torch.randint(len(train) - context, (batch,), generator=generator))

    def spaced(text: Tensor) -> Batch:
        return windows(text, torch.linspace(0, len(text) - context - 1, 160).long())

    sizes = {"batch": batch, "sequence": context}
    return Data(draw, spaced(valid), spaced(test), sizes, digest.hexdigest()[:16])
