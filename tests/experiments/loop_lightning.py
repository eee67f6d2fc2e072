"""Train with Lightning, and let a callback begin the larger module with what was learnt.

    python tests/experiments/loop_lightning.py [--smoke]

Needs lightning. The optimizer of the second training is there when training starts, so that the
callback grows its state as well.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import onnx_net2net as n2n


class Classifier(lightning.LightningModule):
    """Says in which ring around the origin a point lies."""

    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.net = nn.Sequential(
            nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
        )

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        points, rings = batch
        return nn.functional.cross_entropy(self.net(points), rings)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.loss(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.rate)


class GrowFrom(lightning.Callback):
    """Begin with what a smaller module has learnt, and with the state of its optimizer."""

    def __init__(self, small: Classifier, batch: tuple[Tensor, Tensor]) -> None:
        self.small, self.batch, self.optimizer = small, batch, small.optimizers()

    def on_train_start(self, trainer: lightning.Trainer, module: Classifier) -> None:
        report = n2n.transfer(
            self.small.net, module.net, self.batch[0][:8],
            optimizer=self.optimizer, large_optimizer=module.optimizers(),
        )  # fmt: skip
        print(report)
        print(f"grown: {module.loss(self.batch):.4f}")


def main(epochs: int) -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(0)
    points = torch.randn(4096, 2)
    rings = (points.norm(dim=1) * 2).long().clamp(max=3)
    loader = DataLoader(TensorDataset(points, rings), 64, shuffle=True)

    def fit(what: str, module: Classifier, *callbacks: lightning.Callback) -> None:
        lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", callbacks=[*callbacks], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        ).fit(module, loader)  # fmt: skip
        print(f"{what}: {module.loss((points, rings)):.4f}")

    small = Classifier(16, 3e-3)
    fit("small", small)
    fit("trained", Classifier(24, 2e-3), GrowFrom(small, (points, rings)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one epoch only")
    main(1 if parser.parse_args().smoke else 20)
