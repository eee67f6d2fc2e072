"""Export small configurations of architectures of `transformers`: language, vision and speech.

    python tests/coverage/transformers_export.py /big/disk

writes DIR/transformers/<architecture>.<exporter>.onnx and a JSON record beside each, for run.py and
imports.py. Random weights; nothing is downloaded. Records that exist are skipped.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import randomise
import torch
import transformers
from torch import Tensor, nn
from torch.export import Dim

VOCABULARY = 131
Inputs = dict[str, Tensor]
Axes = dict[str, dict[int, Any]]

# ---- what networks read ------------------------------------------------------------------------


def tokens(config: Any) -> tuple[Inputs, Axes]:
    """Token ids and a mask that hides the end of the last sequence."""
    ids = torch.randint(3, VOCABULARY, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[-1, -2:] = 0
    given = {"input_ids": ids, "attention_mask": mask}
    return given, {name: {0: Dim.AUTO, 1: Dim.AUTO} for name in given}


def sentences(config: Any) -> tuple[Inputs, Axes]:
    """Token ids of a fixed length."""
    given, _ = tokens(config)
    return given, {name: {0: Dim.AUTO} for name in given}


def pairs(config: Any) -> tuple[Inputs, Axes]:
    """A source and a target sequence."""
    given, axes = tokens(config)
    given["decoder_input_ids"] = torch.randint(3, VOCABULARY, (2, 5))
    return given, axes | {"decoder_input_ids": {0: Dim.AUTO, 1: Dim.AUTO}}


def pixels(config: Any) -> tuple[Inputs, Axes]:
    """Images."""
    size = getattr(config, "image_size", 32)
    size = size if isinstance(size, int) else size[0]
    return {"pixel_values": torch.randn(2, 3, size, size)}, {"pixel_values": {0: Dim.AUTO}}


def both(config: Any) -> tuple[Inputs, Axes]:
    """Images and their captions."""
    text, axes = tokens(config)
    images, more = pixels(config.vision_config)
    return text | images, axes | more


def waves(config: Any) -> tuple[Inputs, Axes]:
    """Sound as it is sampled."""
    return {"input_values": torch.randn(2, 1600)}, {"input_values": {0: Dim.AUTO}}


def spectrogram(config: Any) -> tuple[Inputs, Axes]:
    """Sound as a spectrogram, time before frequency."""
    given = torch.randn(2, config.max_length, config.num_mel_bins)
    return {"input_values": given}, {"input_values": {0: Dim.AUTO}}


def speech(config: Any) -> tuple[Inputs, Axes]:
    """A spectrogram, frequency before time, and the text so far."""
    given = {
        "input_features": torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions),
        "decoder_input_ids": torch.randint(3, VOCABULARY, (2, 5)),
    }
    return given, {"input_features": {0: Dim.AUTO}, "decoder_input_ids": {0: Dim.AUTO, 1: Dim.AUTO}}


# ---- architectures -----------------------------------------------------------------------------


class Architecture(NamedTuple):
    """A model type of transformers, in small."""

    kind: str
    inputs: Callable[[Any], tuple[Inputs, Axes]]
    settings: dict[str, Any]
    options: dict[str, Any] = {}  # noqa: RUF012 (how to compute, where the default has no export)


def _text(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 84,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    } | more


def _image(**more: Any) -> dict[str, Any]:
    return {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 84,
    } | more


def _two_stacks(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "d_model": 48,
        "encoder_layers": 3,
        "decoder_layers": 3,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 84,
        "decoder_ffn_dim": 84,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    } | more


GQA = {"num_key_value_heads": 2}
SOUND = _text(
    conv_dim=(24, 24, 24),
    conv_stride=(5, 4, 2),
    conv_kernel=(10, 8, 4),
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
ARCHITECTURES = {
    # encoders
    "albert": Architecture("language", tokens, _text(embedding_size=24)),
    "bert": Architecture("language", tokens, _text()),
    "deberta-v2": Architecture(
        "language", tokens, _text(relative_attention=True, pos_att_type=["p2c", "c2p"])
    ),
    "distilbert": Architecture(
        "language",
        tokens,
        {"vocab_size": VOCABULARY, "dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 84},
    ),
    "electra": Architecture("language", tokens, _text(embedding_size=24)),
    "modernbert": Architecture("language", tokens, _text(global_attn_every_n_layers=2)),
    "mpnet": Architecture("language", tokens, _text()),
    "roberta": Architecture("language", tokens, _text(max_position_embeddings=66)),
    "xlm-roberta": Architecture("language", tokens, _text(max_position_embeddings=66)),
    # decoders
    "bloom": Architecture(
        "language", tokens, {"vocab_size": VOCABULARY, "hidden_size": 48, "n_layer": 3, "n_head": 4}
    ),
    "cohere": Architecture("language", tokens, _text(**GQA)),
    "falcon": Architecture("language", tokens, _text()),
    "gemma": Architecture("language", tokens, _text(head_dim=12, **GQA)),
    "gemma2": Architecture("language", tokens, _text(head_dim=12, **GQA)),
    "gpt2": Architecture(
        "language",
        tokens,
        {"vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "gpt_neo": Architecture(
        "language",
        tokens,
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local", "global"], 1]],
            "max_position_embeddings": 64,
        },
    ),
    "gpt_neox": Architecture("language", tokens, _text()),
    "gptj": Architecture(
        "language",
        tokens,
        {
            "vocab_size": VOCABULARY,
            "n_embd": 48,
            "n_layer": 3,
            "n_head": 4,
            "rotary_dim": 6,
            "n_positions": 64,
        },
    ),
    "granite": Architecture("language", tokens, _text(**GQA)),
    "llama": Architecture("language", tokens, _text(**GQA)),
    "mamba": Architecture(
        "language",
        sentences,  # the scan over the sequence is unrolled
        {"vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 3, "state_size": 8},
    ),
    "mistral": Architecture("language", tokens, _text(**GQA)),
    "mixtral": Architecture(
        "language",
        tokens,
        _text(num_local_experts=4, **GQA),
        {"experts_implementation": "batched_mm"},
    ),
    "mpt": Architecture(
        "language",
        tokens,
        {"vocab_size": VOCABULARY, "d_model": 48, "n_layers": 3, "n_heads": 4, "max_seq_len": 64},
    ),
    "olmo2": Architecture("language", tokens, _text(**GQA)),
    "opt": Architecture(
        "language", tokens, _text(ffn_dim=84, word_embed_proj_dim=48, max_position_embeddings=64)
    ),
    "phi": Architecture("language", tokens, _text()),
    "phi3": Architecture("language", tokens, _text(**GQA)),
    "qwen2": Architecture("language", tokens, _text(**GQA)),
    "qwen3": Architecture("language", tokens, _text(head_dim=12, **GQA)),
    # two stacks
    "bart": Architecture("language", pairs, _two_stacks()),
    "pegasus": Architecture("language", pairs, _two_stacks()),
    "t5": Architecture(
        "language",
        pairs,
        {
            "vocab_size": VOCABULARY,
            "d_model": 48,
            "d_kv": 12,
            "d_ff": 84,
            "num_layers": 3,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        {"attn_implementation": "eager"},
    ),
    # vision
    "beit": Architecture("vision", pixels, _image()),
    "clip": Architecture("vision", both, {"text_config": _text(), "vision_config": _image()}),
    "convnext": Architecture(
        "vision", pixels, {"depths": [2, 2, 3, 2], "hidden_sizes": [12, 24, 36, 48]}
    ),
    "convnextv2": Architecture(
        "vision", pixels, {"depths": [2, 2, 3, 2], "hidden_sizes": [12, 24, 36, 48]}
    ),
    "deit": Architecture("vision", pixels, _image()),
    "dinov2": Architecture("vision", pixels, _image()),
    "mobilevit": Architecture(
        "vision",
        pixels,
        {"hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 16, 24, 32, 48, 56, 64]},
    ),
    "poolformer": Architecture(
        "vision", pixels, {"depths": [2, 2, 2, 2], "hidden_sizes": [12, 24, 36, 48]}
    ),
    "regnet": Architecture(
        "vision",
        pixels,
        {"embedding_size": 12, "hidden_sizes": [16, 24, 32, 48], "depths": [2, 2, 2, 2]}
        | {"groups_width": 8},
    ),
    "resnet": Architecture(
        "vision",
        pixels,
        {"embedding_size": 12, "hidden_sizes": [16, 24, 32, 48], "depths": [2, 2, 2, 2]},
    ),
    "segformer": Architecture(
        "vision", pixels, {"depths": [2, 2, 2, 2], "hidden_sizes": [8, 16, 40, 64]}
    ),
    "swin": Architecture(
        "vision",
        pixels,
        {"image_size": 32, "patch_size": 2, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}
        | {"window_size": 4},
        {"attn_implementation": "eager"},
    ),
    "vit": Architecture("vision", pixels, _image()),
    # speech
    "audio-spectrogram-transformer": Architecture(
        "speech", spectrogram, _image(max_length=48, num_mel_bins=32, patch_size=16)
    ),
    "hubert": Architecture("speech", waves, SOUND),
    "wav2vec2": Architecture("speech", waves, SOUND),
    "wavlm": Architecture("speech", waves, SOUND),
    "whisper": Architecture(
        "speech",
        speech,
        _two_stacks(num_mel_bins=16, max_source_positions=20, max_target_positions=30),
    ),
}


class First(nn.Module):
    """Calls a model by the names of its inputs and gives the first tensor of its result."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *given: Tensor) -> Tensor:
        """The first tensor of the model's result."""
        named = dict(zip(self.names, given, strict=True))
        return self.model(**named, return_dict=True).to_tuple()[0]


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...], list[dict[int, Any]], list[str]]:
    """The network with random weights, what it reads, the axes that may vary, their names."""
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    architecture = ARCHITECTURES[name]
    config = transformers.AutoConfig.for_model(name, **architecture.settings)
    for part in (config, *(getattr(config, p, None) for p in ("text_config", "encoder"))):
        if part is not None:
            part.use_cache = False
    model = transformers.AutoModel.from_config(config, **architecture.options).eval()
    generator = torch.Generator().manual_seed(seed)
    randomise.randomise_constants(model, generator)
    given, axes = architecture.inputs(config)
    names = list(given)
    first = First(model, names).eval()
    if len(given) == 1:  # else the signal dies away in networks with BatchNorm
        randomise.measure_batchnorm(first, given[names[0]], generator)
    return first, tuple(given.values()), [axes[n] for n in names], names


def export(name: str, exporter: str, path: Path) -> dict[str, Any]:
    """Export one architecture; returns its record."""
    kind, start = ARCHITECTURES[name].kind, time.monotonic()
    record: dict[str, Any] = {"suite": "transformers", "name": name, "family": kind}
    record |= {"exporter": exporter, "ok": False, "torch": torch.__version__}
    try:
        model, given, axes, names = build(name)
        record["parameters"] = sum(p.numel() for p in model.parameters())
        torch.onnx.export(
            model,
            given,
            str(path),
            dynamo=True,
            optimize=exporter == "dynamo",
            external_data=False,
            input_names=names,
            output_names=["output"],
            dynamic_shapes=(tuple(axes),),
            verbose=False,
        )
        record |= {"ok": True, "nodes": len(onnx.load(path).graph.node)}
        record["bytes"] = path.stat().st_size
    # Whatever an exporter raises is the result of this export, and the sweep goes on.
    except Exception as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        record["error"] = f"{type(cause).__name__}: {str(cause).strip().splitlines()[:1]}"[:400]
        path.unlink(missing_ok=True)
    return record | {"seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    """Export everything that has no record yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--exporter", nargs="+", default=["dynamo", "dynamo-raw"])
    parser.add_argument("--only", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--redo", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    folder = options.directory / "transformers"
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        for exporter in options.exporter:
            path = folder / f"{name}.{exporter}.onnx"
            record = path.with_suffix(".json")
            if options.redo or not record.exists():
                found = export(name, exporter, path)
                record.write_text(json.dumps(found, indent=1) + "\n")
                print(path.stem, found["seconds"], "s", found.get("error", "ok"), flush=True)


if __name__ == "__main__":
    main()
