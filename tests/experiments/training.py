"""One training: a network, a rate, a number of steps; and how good it was after each of them.

The rate is constant after a warm-up, and what is judged is the average of the weights over about
the last tenth of the steps so far, so that a single training tells what one of any length would
reach (Shamir and Zhang, ICML 2013; Hagele et al., NeurIPS 2024). No entrant is cut off in the
middle of a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from data import Batch, Data
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

import onnx_net2net as n2n

Point = dict[str, float]
Loss = Callable[[nn.Module, Batch], Tensor]
Watch = Callable[[nn.Module, Data], Point]

_MARKS = 3  # times to judge while the number of steps doubles
_STATISTICS = 8  # batches to measure the statistics of BatchNorm on


@dataclass
class Start:
    """A network that is about to be trained.

    ``model`` is the same network as this program sees it, whose weights are of no account, and
    ``flops`` are those of one training step. ``state`` is given the optimizer and returns the state
    that it begins with. Only the parameters ``trained`` are, if any are named.
    """

    module: nn.Module
    model: n2n.Model
    flops: float
    state: Callable[..., dict[str, Any]] | None = None
    trained: Collection[str] = ()
    loss: Loss | None = None
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW


@dataclass(frozen=True)
class Schedule:
    """How a network is trained: at a constant rate, after a warm-up.

    Training ends early, at a plateau, where doubling the steps lowered the loss by less than the
    share ``plateau``.
    """

    steps: int
    rate: float
    warmup: int
    plateau: float = 0.0


def cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of class scores, of each image or of each character."""
    inputs, targets = batch
    return F.cross_entropy(module(inputs).flatten(0, -2), targets.flatten())


def marks(steps: int) -> list[int]:
    """Return the steps after which to judge: 0, and then evenly by their logarithm."""
    count = math.ceil(_MARKS * math.log2(steps))
    return sorted({0, *(round(steps / 2 ** (i / _MARKS)) for i in range(count + 1))})


def train(
    start: Start,
    data: Data,
    schedule: Schedule,
    seed: int,
    watch: Watch | None = None,
) -> tuple[nn.Module, torch.optim.Optimizer, list[Point]]:
    """Train a network in place. Return its averaged weights, its optimizer, and the points.

    ``watch`` measures something else of the network at each mark.
    """
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    module, loss = start.module.train(), start.loss or cross_entropy
    module.to(memory_format=torch.channels_last)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not start.trained or name in start.trained)
    learned = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = start.optimizer(learned, lr=schedule.rate, fused=True)
    if start.state is not None:
        optimizer.load_state_dict(start.state(into=optimizer))
    average = AveragedModel(module, multi_avg_fn=_average)
    points: list[Point] = []
    for step in range(schedule.steps + 1):
        if step in marks(schedule.steps):
            point = {"step": step} | judge(average.module, data)
            points.append(point | (watch(module, data) if watch else {}))
            if step == schedule.steps or _is_plateau(points, schedule.plateau):
                break
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * min(1.0, (step + 1) / (schedule.warmup + 1))
        optimizer.zero_grad()
        loss(module, data.draw(generator)).backward()
        optimizer.step()
        average.update_parameters(module)
    return average.module.eval(), optimizer, points


def _average(averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
    """Move averages towards weights, so that those of the last tenth of all steps count."""
    torch._foreach_lerp_(averages, weights, 9 / (int(count) + 9))


def _is_plateau(points: list[Point], share: float) -> bool:
    """Return whether twice the steps brought less than ``share`` of the loss; not at the start."""
    if share == 0 or len(points) <= 8 * _MARKS:
        return False
    before, now = (points[i]["valid loss"] for i in (-1 - _MARKS, -1))
    return now > (1 - share) * before


def judge(module: nn.Module, data: Data) -> Point:
    """Return loss and accuracy on both sets that are not trained on."""
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules()):
        update_bn(_inputs(data), module)  # averaged weights have statistics of their own
    module.eval()
    point = {}
    with torch.no_grad():
        for part, (inputs, targets) in (("valid", data.valid), ("test", data.test)):
            scores = module(inputs).flatten(0, -2)
            point[f"{part} loss"] = F.cross_entropy(scores, targets.flatten()).item()
            right = scores.argmax(-1) == targets.flatten()
            point[f"{part} accuracy"] = right.float().mean().item()
    return point


def _inputs(data: Data) -> Iterator[Tensor]:
    """Yield the same few batches each time."""
    generator = Generator().manual_seed(0)
    for _ in range(_STATISTICS):
        yield data.draw(generator)[0]
