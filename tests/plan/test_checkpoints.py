"""Checkpoint folders grown by settings: the class loads them, strictly, and computes the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
transformers = pytest.importorskip("transformers", reason="needs the extra [test-frameworks]")

from onnx_net2net.errors import InvalidModel, OutputError, Refused, UsageError  # noqa: E402
from onnx_net2net.frameworks.torch import checkpoint  # noqa: E402
from onnx_net2net.frameworks.torch.checkpoint import read_checkpoint  # noqa: E402
from onnx_net2net.frameworks.torch.pretrained import example, exported  # noqa: E402
from onnx_net2net.plan import checkpoints  # noqa: E402
from onnx_net2net.plan.checkpoints import grow_checkpoint  # noqa: E402
from onnx_net2net.plan.settings import choose_settings  # noqa: E402
from tests.console import complaint, finished  # noqa: E402

TEXT = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
LAYERS = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 24,
}  # fmt: skip
GROUPED = {**LAYERS, **TEXT, "num_key_value_heads": 2}
WIDER = {"hidden_size": 24, "num_attention_heads": 6, "num_hidden_layers": 2}

# A class, what it is built with, and what it becomes.
GROWTHS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpt2": (
        "GPT2LMHeadModel",
        {"n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 12, **TEXT},
        {"n_embd": 24, "n_head": 6, "n_layer": 2},
    ),
    "llama": (
        "LlamaForCausalLM",
        {**GROUPED, "tie_word_embeddings": True, "dtype": "bfloat16"},
        {**WIDER, "num_key_value_heads": 3, "intermediate_size": 32},
    ),
    "resnet": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2], "layer_type": "basic"},
        {"embedding_size": 12, "hidden_sizes": [12, 20], "depths": [1, 3]},
    ),
    "whisper": (
        "WhisperForAudioClassification",
        {
            "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 24, "num_mel_bins": 8, "max_source_positions": 12,
        },
        {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 40},
    ),
}  # fmt: skip


KEPT = checkpoint._exported  # the last exports, and no more


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """What tests of this file have exported, later ones have as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_exported", cache(KEPT.__wrapped__))
        yield


def _network(kind: str, settings: Mapping[str, Any]) -> Any:
    """A network whose norms and biases are not those of its birth."""
    torch.manual_seed(0)
    network = getattr(transformers, kind)
    dtype = getattr(torch, settings.get("dtype", "float32"))
    network = network(network.config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.rand(parameter.shape)
    return network.to(dtype)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Folders that ``save_pretrained`` has written, each with its network."""
    known: dict[str, tuple[Path, Any]] = {}

    def folder(name: str) -> tuple[Path, Any]:
        if name not in known:
            network = _network(*GROWTHS[name][:2])
            known[name] = tmp_path_factory.mktemp("small") / name, network
            network.save_pretrained(known[name][0])
        return known[name]

    return folder


@pytest.mark.parametrize("name", GROWTHS)
def test_the_class_loads_what_was_grown(name: str, folders: Any, tmp_path: Path) -> None:
    folder, network = folders(name)
    grown = grow_checkpoint(folder, tmp_path / "large", settings=GROWTHS[name][2])
    assert grown.report
    large, told = type(network).from_pretrained(
        tmp_path / "large", output_loading_info=True, dtype=network.dtype
    )
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    inputs = example(network, network.config)
    with torch.no_grad():
        old, new = (module.eval()(**inputs)[0].float() for module in (network, large))
    bound = 2e-2 if network.dtype == torch.bfloat16 else 1e-5
    assert (old - new).abs().max() < bound * old.abs().max()
    assert large.num_parameters() > 1.5 * network.num_parameters()
    if "layer_norm_epsilon" in grown.settings:
        assert grown.settings["layer_norm_epsilon"] == (1e-5, pytest.approx(1e-5 * 16 / 24))
    else:
        assert name != "gpt2"


def test_what_was_grown_into_is_not_exported_again(
    folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second growth begins with the graph that the first one ended with."""
    widths: list[int] = []

    def counted(module: Any, config: Any, interface: Any = None) -> Any:
        widths.append(config.n_embd)
        return exported(module, config, interface)

    monkeypatch.setattr(checkpoint, "exported", counted)
    own = lru_cache(**KEPT.cache_parameters())(KEPT.__wrapped__)
    monkeypatch.setattr(checkpoint, "_exported", own)
    sizes = ({"n_embd": 32, "n_head": 8}, {"n_embd": 64, "n_head": 16})
    grown = grow_checkpoint(folders("gpt2")[0], tmp_path / "large", settings=sizes[0])
    assert widths == [16, 32]
    larger = grow_checkpoint(tmp_path / "large", None, settings=sizes[1])
    assert widths == [16, 32, 64] and larger.report
    wte = larger.source.model.weights["lm_head.weight"]
    assert (
        wte.given and (wte.array() == grown.settled.model.weights["lm_head.weight"].array()).all()
    )


def test_a_wrong_weight_is_seen(
    folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge looks at what would be written: an epsilon that stayed as it was."""
    monkeypatch.setattr(checkpoints, "_epsilon_settings", lambda larger, epsilons: {})
    monkeypatch.setattr(checkpoints, "_check_served", lambda left: None)
    with pytest.raises(Refused, match="does not compute the same"):
        grow_checkpoint(folders("gpt2")[0], tmp_path / "x", settings=GROWTHS["gpt2"][2])
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_reached_is_named(folders: Any, tmp_path: Path) -> None:
    """All at once, and nothing is written."""
    with pytest.raises(Refused, match="would shrink from 16 to 8") as refusal:
        grow_checkpoint(folders("gpt2")[0], tmp_path / "x", settings={"n_embd": 8, "n_head": 2})
    assert "c_fc" in str(refusal.value)
    assert not (tmp_path / "x").exists()
    (tmp_path / "x").mkdir()
    with pytest.raises(OutputError, match="exists"):
        grow_checkpoint(folders("gpt2")[0], tmp_path / "x", settings={"n_layer": 2})
    with pytest.raises(OutputError, match="is the source itself"):
        folder = folders("gpt2")[0]
        grow_checkpoint(folder, folder, settings={"n_layer": 2}, force=True)


def test_weights_make_up_for_one_epsilon_of_two_sizes(tmp_path: Path) -> None:
    """Norms of queries keep theirs, those of the hidden size would need another: vectors grow."""
    _network("Qwen3ForCausalLM", {**GROUPED, "head_dim": 4}).save_pretrained(tmp_path / "qwen")
    wider = {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 3}
    grown = grow_checkpoint(tmp_path / "qwen", None, settings=wider)
    assert grown.report and grown.settled.scales and "rms_norm_eps" not in grown.settings


def test_one_epsilon_cannot_serve_norms_of_two_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no weights make up for it, it is refused."""
    monkeypatch.setattr("onnx_net2net.plan.settle.factors_for", lambda *arguments: None)
    _network("Qwen3ForCausalLM", {**GROUPED, "head_dim": 4}).save_pretrained(tmp_path / "qwen")
    wider = {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 3}
    with pytest.raises(Refused, match="cannot serve all norms") as refusal:
        grow_checkpoint(tmp_path / "qwen", None, settings=wider)
    assert "multiple of the hidden size" in str(refusal.value)


def test_a_link_out_of_the_folder_is_not_followed(folders: Any, tmp_path: Path) -> None:
    """What a link leads to would be copied into a folder that people upload."""
    folders("gpt2")[1].save_pretrained(tmp_path / "hostile")
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "hostile" / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidModel, match="a link to a file outside of the folder"):
        grow_checkpoint(tmp_path / "hostile", tmp_path / "out", settings={"n_layer": 2})
    assert not (tmp_path / "out").exists()


def test_links_of_a_cache_are_followed(folders: Any, tmp_path: Path) -> None:
    """The cache of huggingface_hub is made of them."""
    snapshot, blobs = tmp_path / "snapshots" / "main", tmp_path / "blobs"
    folders("gpt2")[1].save_pretrained(snapshot)
    blobs.mkdir()
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(blobs / f"{number}")
        path.symlink_to(blobs / f"{number}")
    assert len(read_checkpoint(snapshot).weights) > 10


def test_more_layers_than_tensors_are_not_built(folders: Any, tmp_path: Path) -> None:
    folders("gpt2")[1].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_layer": 10**9}))
    with pytest.raises(InvalidModel, match="'n_layer' is 1000000000, and its files hold"):
        read_checkpoint(tmp_path)


def test_what_the_compared_output_does_not_read_is_told(tmp_path: Path) -> None:
    """A second head is copied where its shape stays, and nothing else can be said of it."""
    network = _network("BertForPreTraining", {**LAYERS, **TEXT})
    network.save_pretrained(tmp_path / "small")
    grown = grow_checkpoint(tmp_path / "small", None, settings={"intermediate_size": 32})
    assert {"cls.seq_relationship.weight", "bert.pooler.dense.weight"} <= set(grown.unread)
    with pytest.raises(Refused, match="nobody can say how it would grow"):
        wider = {"hidden_size": 32, "num_attention_heads": 8}
        grow_checkpoint(tmp_path / "small", None, settings=wider)


def test_a_budget_asks_for_widths_that_can_be_reached(tmp_path: Path) -> None:
    """Where a norm lets a width grow by multiples only, no other width is chosen."""
    settings = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "image_size": 16}
    _network("ConvNextForImageClassification", settings).save_pretrained(tmp_path / "small")
    source = read_checkpoint(tmp_path / "small")
    for asked in ("2x", "5x"):
        chosen = choose_settings(source, asked)
        assert chosen.get("hidden_sizes", [8, 12])[0] % 8 == 0
        assert checkpoints.plan_checkpoint(source, chosen).settled


@pytest.mark.parametrize("prefer", ["balanced", "width", "depth"])
def test_settings_reach_a_budget(prefer: str, folders: Any) -> None:
    folder, network = folders("gpt2")
    source = read_checkpoint(folder)
    settings = choose_settings(source, "4x", prefer=prefer)
    large = source.with_settings(settings).module
    assert sum(p.numel() for p in large.parameters()) == pytest.approx(
        4 * network.num_parameters(), rel=0.15
    )
    assert set(settings) <= {"n_embd", "n_head", "n_layer"}
    if "n_embd" in settings:  # heads keep their size
        assert settings["n_embd"] == 4 * settings["n_head"]


def test_on_the_command_line(folders: Any, tmp_path: Path) -> None:
    folder, _ = folders("gpt2")
    done = finished("grow", folder, "--set", "n_layer=2", "-o", tmp_path / "out")
    assert done.code == 0 and not done.err, done
    assert "n_layer" in done.out and "verified: equivalent" in done.out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["n_layer"] == 2
    for arguments, message in (
        (("--set", "n_layers=2"), "has no setting 'n_layers'"),
        (("--set", "n_layer"), "not of the form NAME=VALUE"),
        (("--set", "n_layer=2", "--params", "2x"), "give --set, or --params"),
        (("--set", "n_layer=2", "--plan", "p.toml"), "of no use with a checkpoint folder"),
        ((), "give --set, or --params"),
    ):
        failed = finished("grow", folder, *arguments, "-o", tmp_path / "other")
        assert message in complaint(failed, 2)[0]
    assert not (tmp_path / "other").exists()


def _put(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _set(**settings: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        known = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(known | settings))

    return change


# What is done to a folder, and what is then said of it.
FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an adapter": (_put("adapter_config.json", "{}"), "has an adapter"),
    "quantised": (_set(quantization_config={"quant_method": "fp8"}), "has quantised weights"),
    "other file": (_set(transformers_weights="other.safetensors"), "that config.json names"),
    "a class as a word": (_set(architectures="GPT2LMHeadModel"), "has no class ''"),
    "a class as a number": (_set(architectures=[5]), "has no class '5'"),
    "code of its own": (_set(auto_map={"AutoModel": "x.Y"}), "code in the folder"),
    "inner code": (_set(text_config={"auto_map": {"AutoModel": "x.Y"}}), "code in the folder"),
    "a kernel": (_set(attn_implementation="someone/kernel"), "run code from elsewhere"),
    "inner kernel": (_set(parts=[{"_attn_implementation": "a/b"}]), "run code from elsewhere"),
    "a kernel by part": (_set(_attn_implementation={"": "a/b"}), "run code from elsewhere"),
    "a download": (_set(use_pretrained_backbone=True), "download more"),
    "a base class": (_set(architectures=["GPT2PreTrainedModel"]), "has no parameters"),
    "renamed weights": (
        lambda folder: (folder / "model.safetensors").rename(folder / "other.safetensors"),
        "holds no model.safetensors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_compute_something_else_are_refused(
    name: str, folders: Any, tmp_path: Path
) -> None:
    change, message = FOLDERS[name]
    shutil.copytree(folders("gpt2")[0], tmp_path / "small")
    change(tmp_path / "small")
    with pytest.raises(UsageError, match=message):
        grow_checkpoint(tmp_path / "small", tmp_path / "large", settings={"n_layer": 2})
    assert not (tmp_path / "large").exists()


def test_an_index_beside_the_one_file_is_not_read(folders: Any, tmp_path: Path) -> None:
    """As transformers has it: else one would read weights that nobody loads."""
    shutil.copytree(folders("gpt2")[0], tmp_path / "small")
    index = {"weight_map": {"transformer.wte.weight": "old.safetensors"}}
    (tmp_path / "small" / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = read_checkpoint(folders("gpt2")[0])
    assert read_checkpoint(tmp_path / "small").weights.keys() == whole.weights.keys()


@pytest.mark.parametrize("file", ["../small/model.safetensors", "a/b", "", "..", "a\0b", 5, [5]])
def test_an_index_names_files_of_its_folder(file: Any, folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders("gpt2")[0], tmp_path / "small")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": file}}))
    with pytest.raises((InvalidModel, UsageError), match=r"names no files|not a regular file"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["architectures", "dtype", "model_type", "auto_map"])
def test_settings_that_are_no_sizes_stay(name: str, folders: Any) -> None:
    with pytest.raises(UsageError, match="which growing keeps"):
        read_checkpoint(folders("gpt2")[0]).with_settings({name: "llama"})


def test_a_rejected_value_is_explained(folders: Any) -> None:
    with pytest.raises(UsageError, match=r"'n_embd'.*expected int"):
        read_checkpoint(folders("gpt2")[0]).with_settings({"n_embd": "wide"})


# Where a result cannot go: what is prepared there, and what is then said.
TARGETS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "in the source": (lambda here: here / "small" / "large", "lies in the other"),
    "around the source": (lambda here: here, "lies in the other"),
    "a file": (lambda here: here / "file", "is a file"),
    "in a file": (lambda here: here / "file" / "large", "is no folder"),
    "nowhere": (lambda here: here / "none" / "large", "is no folder"),
    "other weights": (lambda here: here / "old", "holds model-00001-of-00002.safetensors"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_what_lies_there_is_neither_lost_nor_mixed(name: str, folders: Any, tmp_path: Path) -> None:
    target, message = TARGETS[name]
    source = shutil.copytree(folders("gpt2")[0], tmp_path / "small")
    (tmp_path / "file").write_text("x")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    (tmp_path / "old" / "model-00001-of-00002.safetensors").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    settings = {"n_layer": 2}
    with pytest.raises(OutputError, match=message):
        grow_checkpoint(source, target(tmp_path), settings=settings, force=True, verify=False)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old" / "config.json").read_text() == "{}"
