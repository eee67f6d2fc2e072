"""The whole circle: torch -> ONNX -> widen -> Keras -> train -> ONNX -> deepen -> torch -> train.

The ONNX file is the master; each hop computes what the file before it does, by the judge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
transformers = pytest.importorskip("transformers", reason="needs transformers")
import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.frameworks.verify_export import agreement  # noqa: E402
from tests.keras_models import keras  # noqa: E402  (skips where Keras or TensorFlow is missing)


def resnet() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A ResNet with BatchNorm whose statistics are not those of a fresh one."""
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=6, hidden_sizes=[8, 12], depths=[2, 1], layer_type="basic",
        num_labels=5, return_dict=False,
    )  # fmt: skip
    module = transformers.ResNetForImageClassification(config)
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return module, {"pixel_values": torch.randn(2, 3, 32, 32)}


def gpt2() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A GPT-2 whose head is tied to its embedding."""
    config = transformers.GPT2Config(
        vocab_size=31, n_positions=16, n_embd=12, n_layer=2, n_head=2, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), {"input_ids": torch.randint(31, (2, 7))}


def batch(model: n2n.Model) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets to learn by heart."""
    rng = np.random.default_rng(0)
    if len(model.proto.graph.input[0].type.tensor_type.shape.dim) == 2:
        tokens = rng.integers(0, 31, (8, 7))
        return tokens, np.roll(tokens, -1, 1)
    return rng.normal(size=(8, 3, 32, 32)).astype(np.float32), rng.integers(0, 5, 8)


def keras_trained(model: n2n.Model) -> tuple[Any, list[float]]:
    """The model in Keras after some epochs, and its losses."""
    network = n2n.to_keras(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    inputs, targets = batch(model)
    fitted = network.fit(inputs, targets, batch_size=8, epochs=4, verbose=0)
    return network, fitted.history["loss"]


def torch_trained(module: torch.nn.Module, model: n2n.Model) -> list[float]:
    """Losses of some steps on one batch."""
    inputs, targets = map(torch.from_numpy, batch(model))
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    losses = []
    module.train()
    for _ in range(4):
        optimizer.zero_grad()
        found = module(inputs).flatten(0, -2)
        loss = torch.nn.functional.cross_entropy(found, targets.flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    module.eval()
    return losses


def assert_torch_agrees(module: torch.nn.Module, model: n2n.Model) -> None:
    (name,) = [value.name for value in model.proto.graph.output]

    def call(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {name: module(*map(torch.from_numpy, feeds.values())).numpy()}

    report = agreement(model, call, seeds=1)
    assert report, report.verdict


def assert_keras_agrees(network: Any, model: n2n.Model) -> None:
    (name,) = [value.name for value in model.proto.graph.output]
    report = agreement(
        model, lambda feeds: {name: np.asarray(network(next(iter(feeds.values()))))}, seeds=1
    )
    assert report, report.verdict


@pytest.mark.parametrize(("build", "wide", "block"), [
    (resnet, {"resnet.encoder.stages.0.layers.0.layer.0.convolution": 11}, "layers.1"),
    (gpt2, {"transformer.h.0.mlp.c_fc": 61, "transformer.wte": 15}, "h.0"),
])  # fmt: skip
def test_growing_goes_on_across_frameworks(
    build: Any, wide: dict[str, int], block: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    module, inputs = build()
    original = n2n.from_torch(module, inputs)

    grown = n2n.widen(original, wide)
    assert n2n.verify(original, grown, seeds=1)
    network = n2n.to_keras(grown)
    assert_keras_agrees(network, grown)

    network, losses = keras_trained(grown)
    assert losses[-1] < losses[0]
    trained = n2n.absorb(grown, network)
    assert_keras_agrees(network, trained)
    assert not n2n.verify(grown, trained, seeds=1), "training has changed nothing"
    trained.save(tmp_path / "trained.onnx")

    deep = n2n.deepen(n2n.load(tmp_path / "trained.onnx"), block=block)
    assert n2n.verify(trained, deep, seeds=1)
    imported = n2n.to_torch(deep)
    assert_torch_agrees(imported, deep)
    losses = torch_trained(imported, deep)
    assert losses[-1] < losses[0]

    final = n2n.absorb(deep, imported)
    assert_torch_agrees(imported, final)
    assert [step["operation"] for step in final.history] == ["widen", "absorb", "deepen", "absorb"]
    assert_author_takes(final, module)


def assert_author_takes(final: n2n.Model, module: torch.nn.Module) -> None:
    """Names in the author's style, one block more than there were."""
    found = n2n.state_dict(final)
    missing = {n for n in module.state_dict() if "num_batches_tracked" not in n} - found.keys()
    assert not missing and len(found) > len(module.state_dict()) - 20
