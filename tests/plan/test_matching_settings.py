"""Settings of the author's class that a grown network has: the class loads it, strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
transformers = pytest.importorskip("transformers", reason="needs the extra [test-frameworks]")

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.plan import checkpoints  # noqa: E402

TEXT = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 1, "use_cache": False}
LAYERS = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 24,
}  # fmt: skip
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 12}
TIED = {"num_key_value_heads": 2, "tie_word_embeddings": True}
TOKENS = {"input_ids": torch.arange(12).reshape(2, 6)}
IMAGES = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)}
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2], "layer_type": "basic"}

# A class, what it is built with, and what it is called with.
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", GPT | TEXT, TOKENS),
    "llama": ("LlamaForCausalLM", LAYERS | TIED | TEXT, TOKENS),
    "resnet": ("ResNetForImageClassification", STAGES, IMAGES),
    "vit": ("ViTForImageClassification", {**LAYERS, "image_size": 16, "patch_size": 8}, IMAGES),
}


@cache
def network(name: str) -> Any:
    """A network whose norms and biases are not those of its birth."""
    kind, settings, _ = NETWORKS[name]
    torch.manual_seed(0)
    module = getattr(transformers, kind)
    module = module(module.config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.rand(parameter.shape)
    return module


@cache
def exported(name: str) -> n2n.Model:
    return n2n.from_torch(network(name), NETWORKS[name][2])


def widened(name: str, **ends: int) -> n2n.Model:
    """The export with other widths of all dimensions whose names end so."""
    dimensions = [d.name for d in n2n.inspect(exported(name)) if d.grows]
    return n2n.widen(
        exported(name), {d: w for e, w in ends.items() for d in dimensions if d.endswith(e)}
    )


# A network, how it grows, and the settings that say so.
GROWTHS: dict[str, tuple[str, Callable[[n2n.Model], n2n.Model], dict[str, Any]]] = {
    "heads, layers and an epsilon": (
        "gpt2",
        lambda model: n2n.grow(model, params="3.5x"),
        {"n_embd": 24, "n_head": 6, "n_layer": 2, "layer_norm_epsilon": 1e-5 * 16 / 24},
    ),
    "a setting that was not set": ("gpt2", lambda _: widened("gpt2", c_fc=72), {"n_inner": 72}),
    "groups of heads": (
        "llama",
        lambda model: n2n.grow(model, params="3x", prefer="width"),
        {"hidden_size": 32, "num_attention_heads": 8, "num_key_value_heads": 4},
    ),
    "the same in a list": (
        "resnet",
        lambda model: n2n.deepen(model, block="resnet.encoder.stages.1.layers.1", copies=2),
        {"depths": [1, 4]},
    ),
    "names that stay derived": (
        "vit",
        lambda model: n2n.grow(model, params="3x", prefer="width"),
        {},
    ),
}


@pytest.mark.parametrize("growth", GROWTHS)
def test_the_class_loads_what_was_grown(growth: str) -> None:
    name, grow, wanted = GROWTHS[growth]
    small, grown = network(name), grow(exported(name))
    changes = n2n.config_changes(small.config, grown)
    for setting, value in wanted.items():
        assert changes[setting] == pytest.approx(value), setting
    large = type(small)(small.config_class.from_dict(small.config.to_dict() | changes)).eval()
    large.load_state_dict(n2n.state_dict(grown))
    with torch.no_grad():
        old, new = (module(**NETWORKS[name][2])[0] for module in (small, large))
    assert (old - new).abs().max() < 1e-5 * old.abs().max()


def test_a_configuration_comes_in_many_ways(tmp_path: Path) -> None:
    """As a dict, a folder or a file; with a name of the class that it lacks until it is saved."""
    config = network("gpt2").config
    grown = n2n.deepen(exported("gpt2"), block="transformer.h.0")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    for known in (config.to_dict(), tmp_path, path):
        assert n2n.config_changes(known, grown) == {"n_layer": 2}
    path.write_text("[]")
    for known, message in (
        (path, "no JSON object"),
        (tmp_path / "none", "no such file"),
        (5, "int"),
    ):
        with pytest.raises(n2n.Net2NetError, match=message):
            n2n.config_changes(known, grown)


def test_what_no_settings_say_is_refused() -> None:
    """Larger heads need other weights in the class; blocks of two widths have no setting."""
    config = network("gpt2").config
    sizes = {d.name: 6 for d in n2n.inspect(exported("gpt2")) if d.name.endswith("head_size")}
    larger = n2n.widen(widened("gpt2", wte=24), sizes)
    with pytest.raises(n2n.Refused, match=r"for which .* make up") as refusal:
        n2n.config_changes(config, larger)
    assert "transfer" in str(refusal.value.remedy)
    taller = n2n.deepen(exported("gpt2"), block="transformer.h.0")
    uneven = n2n.widen(taller, {"transformer.h.1.mlp.c_fc": 72})
    with pytest.raises(n2n.Refused, match=r"h\.1\.mlp.*no settings give it the shape.*n_layer=2"):
        n2n.config_changes(config, uneven)


def test_a_wrong_reading_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epsilon that stayed as it was."""
    monkeypatch.setattr(checkpoints, "_epsilon_settings", lambda larger, epsilons: {})
    monkeypatch.setattr(checkpoints, "_check_served", lambda left: None)
    with pytest.raises(n2n.Refused, match="does not compute the same"):
        n2n.config_changes(network("gpt2").config, n2n.grow(exported("gpt2"), params="3.5x"))
