"""Checkpoint folders of transformers as models: what they compute, and what they may not do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
transformers = pytest.importorskip("transformers", reason="needs the extra [test-frameworks]")

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.errors import InvalidModel, Net2NetError, UsageError  # noqa: E402
from onnx_net2net.frameworks.names import ties  # noqa: E402
from onnx_net2net.frameworks.torch.checkpoint import (  # noqa: E402
    CONFIG,
    INDEX,
    Checkpoint,
    key_of,
    read_checkpoint,
    write_checkpoint,
)
from onnx_net2net.frameworks.torch.pretrained import example  # noqa: E402
from onnx_net2net.verification.verify import run  # noqa: E402

TEXT = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
LAYERS = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 24,
}  # fmt: skip


def _network(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    network = getattr(transformers, kind)
    return network(network.config_class(**settings)).eval()


NETWORKS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: _network(
        "GPT2LMHeadModel", n_embd=16, n_layer=1, n_head=4, n_positions=12, **TEXT
    ),
    "llama": lambda: _network(
        "LlamaForCausalLM", num_key_value_heads=2, tie_word_embeddings=True, **LAYERS, **TEXT
    ),
    "bert": lambda: _network("BertForMaskedLM", **LAYERS, **TEXT),
    "vit": lambda: _network("ViTForImageClassification", image_size=8, patch_size=4, **LAYERS),
    "convnext": lambda: _network(
        "ConvNextForImageClassification",
        hidden_sizes=[8, 12], depths=[1, 2], num_stages=2, image_size=16,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Folders that ``save_pretrained`` has written, each with its network."""
    known: dict[str, tuple[Path, Any]] = {}

    def folder(name: str) -> tuple[Path, Any]:
        if name not in known:
            path = tmp_path_factory.mktemp("checkpoints") / name
            known[name] = path, NETWORKS[name]()
            known[name][1].save_pretrained(path)
        return known[name]

    return folder


@pytest.fixture(params=NETWORKS)
def checkpoint(request: pytest.FixtureRequest, folders: Any) -> Iterator[tuple[Checkpoint, Any]]:
    path, network = folders(request.param)
    yield read_checkpoint(path), network


def test_a_folder_computes_what_its_class_does(checkpoint: tuple[Checkpoint, Any]) -> None:
    read, network = checkpoint
    inputs = example(network, network.config)
    outputs = run(read.model, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        expected = network(**inputs)[0].numpy()
    np.testing.assert_allclose(next(iter(outputs.values())), expected, rtol=1e-4, atol=1e-5)
    names = read.model.weights.keys() | ties(read.model).keys()
    assert names >= {name for name, _ in network.named_parameters()}


def test_the_memory_of_weights_is_not_taken(folders: Any) -> None:
    read = read_checkpoint(folders("gpt2")[0])
    assert all(parameter.is_meta for parameter in read.module.parameters())
    large = read.with_settings({"n_embd": 2**13, "n_head": 2**9})  # 6 GB
    assert large.module.lm_head.weight.shape == (50, 2**13)
    assert large.with_settings({"hidden_size": 32}).settings["n_embd"] == 32
    larger = read.with_settings({"n_embd": 32}).model
    assert larger.weights["transformer.h.0.ln_1.weight"].shape == (32,)
    with pytest.raises(UsageError, match=r"contents of '[\w.]+' are not given"):
        larger.to_bytes()


def test_what_is_written_loads_strictly(checkpoint: tuple[Checkpoint, Any], tmp_path: Path) -> None:
    read, network = checkpoint
    (read.folder / "tokenizer_config.json").write_text("{}")
    write_checkpoint(read, read.weights, tmp_path / "copy")
    assert (tmp_path / "copy" / "tokenizer_config.json").read_text() == "{}"
    twin, told = type(network).from_pretrained(tmp_path / "copy", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name])


def test_shards_have_an_index(folders: Any, tmp_path: Path) -> None:
    path, network = folders("gpt2")
    read = read_checkpoint(path)
    write_checkpoint(read, read.weights, tmp_path / "parts", 5_000)
    assert len(list((tmp_path / "parts").glob("model-*-of-*.safetensors"))) > 2
    again = type(network).from_pretrained(tmp_path / "parts")
    assert torch.equal(again.lm_head.weight, network.lm_head.weight)
    assert (
        read_checkpoint(tmp_path / "parts").weights.keys() == read_checkpoint(path).weights.keys()
    )


def test_a_type_of_half_the_bits_is_kept(tmp_path: Path) -> None:
    NETWORKS["vit"]().bfloat16().save_pretrained(tmp_path)
    model = read_checkpoint(tmp_path).model
    assert str(model.weights["vit.layernorm.weight"].array().dtype) == "bfloat16"


def test_keys_of_new_layers_are_like_those_of_old_ones() -> None:
    keys = {"m.h.0.w": "h.0.w", "m.h.0.1.b": "h.0.1.b", "s.0.l.0.w": "s.0.l.0.w"}
    assert key_of("m.h.12.w", keys) == ("h.12.w", "h.0.w")
    assert key_of("m.h.0.3.b", keys) == ("h.0.3.b", "h.0.1.b")
    assert key_of("s.0.l.2.w", keys) == ("s.0.l.2.w", "s.0.l.0.w")
    assert key_of("other.3", keys) == ("other.3", None)


# ---- folders of strangers -----------------------------------------------------------------------


def _broken(folder: Path, file: str, change: Callable[[Any], Any]) -> None:
    value = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(change(value)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c: c | {"architectures": ["Missing"]}, UsageError, "no class 'Missing'"),
        (lambda c: c | {"architectures": ["os"]}, UsageError, "no class 'os'"),
        (lambda c: c | {"n_embd": 32}, InvalidModel, r"in the files, .* in the class"),
        (lambda c: c | {"n_head": 3}, UsageError, "cannot be built"),
        (lambda c: [c], InvalidModel, "no JSON object"),
        (lambda c: {}, UsageError, "no model type"),
    ],
)
def test_configurations_that_fit_nothing(
    tmp_path: Path, folders: Any, change: Any, error: type[Net2NetError], message: str
) -> None:
    folders("gpt2")[1].save_pretrained(tmp_path)
    _broken(tmp_path, CONFIG, change)
    with pytest.raises(error, match=message):
        assert read_checkpoint(tmp_path).model


def test_code_in_a_folder_is_not_run(tmp_path: Path, folders: Any) -> None:
    folders("gpt2")[1].save_pretrained(tmp_path)
    mark = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')")
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    _broken(tmp_path, CONFIG, lambda config: config | {"auto_map": own})
    with pytest.raises(UsageError, match="code in the folder, which is not run"):
        read_checkpoint(tmp_path)
    assert not mark.exists()


def test_files_outside_of_the_folder_are_not_read(tmp_path: Path, folders: Any) -> None:
    inside = tmp_path / "inside"
    folders("gpt2")[1].save_pretrained(inside)
    (inside / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (inside / INDEX).write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(InvalidModel, match="names no files of this folder"):
        read_checkpoint(inside)


def test_folders_without_weights_are_told_apart(tmp_path: Path, folders: Any) -> None:
    with pytest.raises(UsageError, match=r"config\.json: no such file"):
        read_checkpoint(tmp_path)
    folders("gpt2")[1].save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"holds no model\.safetensors"):
        read_checkpoint(tmp_path)
    small = read_checkpoint(folders("gpt2")[0])
    with pytest.raises(UsageError, match="that is absurd for 1"):
        small.with_settings({"n_layer": 10**7})
    with pytest.raises(UsageError, match="is no inner configuration"):
        small.with_settings({"n_embd.width.x": 3})
    with pytest.raises(UsageError, match="did you mean 'n_embd'"):
        read_checkpoint(folders("gpt2")[0]).with_settings({"n_emb": 32})


def test_a_module_on_the_meta_device_has_the_graph_of_a_real_one() -> None:
    """The same nodes, whether weights are there or not; and the module is left as it was."""

    def build() -> Any:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6))

    with torch.device("meta"):
        empty = build()
    absent = n2n.from_torch(empty, torch.zeros(2, 3, 8, 8))
    real = n2n.from_torch(build(), torch.zeros(2, 3, 8, 8))
    assert absent.proto.graph.node == real.proto.graph.node
    assert not any(weight.given for weight in absent.weights.values())
    assert {n: w.shape for n, w in absent.weights.items()} == {
        n: w.shape for n, w in real.weights.items()
    }
    assert [(d.name, d.width, d.growth) for d in n2n.inspect(absent)] == [
        (d.name, d.width, d.growth) for d in n2n.inspect(real)
    ]
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
