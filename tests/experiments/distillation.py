"""Teacher and student: what a larger network learns from a small one's answers, not its weights.

The talk's claim: a larger student, begun from scratch, does not converge well this way.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from contest import Contest, Entrant, main, teacher
from data import Batch, digits
from growing import Origin, scratch, widened
from torch import Tensor, nn
from training import Start, cross_entropy
from wider import FULL, SMALL

import onnx_net2net as n2n

TEMPERATURE = 2.0


def student(origin: Origin) -> Start:
    """Begin with random weights, and learn from labels and the teacher's answers, half and half."""
    start, teacher = scratch(origin, FULL), n2n.to_torch(origin.model).eval()
    sizes = {name: origin.data.sizes[name] for name in n2n.costs(origin.model).sizes}
    start.flops += n2n.costs(origin.model, sizes=sizes).flops

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            answers = F.softmax(teacher(batch[0]) / TEMPERATURE, -1)
        scores = F.log_softmax(module(batch[0]) / TEMPERATURE, -1)
        distance = F.kl_div(scores, answers, reduction="batchmean") * TEMPERATURE**2
        return (cross_entropy(module, batch) + distance) / 2

    start.loss = loss
    return start


CONTEST = Contest(
    "distillation",
    digits,
    {
        "teacher": teacher(SMALL),
        "scratch": Entrant(partial(scratch, build=FULL), None),
        "student": Entrant(student),
        "grown": Entrant(partial(widened, build=FULL)),
    },
    steps=4096,
)

if __name__ == "__main__":
    main(CONTEST)
