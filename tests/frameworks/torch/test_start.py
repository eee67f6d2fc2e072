"""Several processes start from a grown folder: none reads or holds more than its part."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
transformers = pytest.importorskip("transformers", reason="needs the extra [test-frameworks]")
pytest.importorskip("safetensors", reason="needs the extra [test-frameworks]")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

import onnx_net2net as n2n  # noqa: E402
from tests.console import ROOT, environment, finished  # noqa: E402

SCRIPT = ROOT / "tests" / "experiments" / "start_fsdp.py"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def started(folder: Path, *arguments: str) -> tuple[dict[str, float], list[tuple[int, int, int]]]:
    """Losses, and for each process its own bytes, those of the model, and its memory for them."""
    done = subprocess.run(
        [sys.executable, *TORCHRUN, str(SCRIPT), str(folder), *arguments],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = dict(re.findall(r"^(\w+): ([\d.]+)$", done.stdout, re.MULTILINE))
    line = r"^process \d: (\d+) of (\d+) bytes, at most (-?\d+) more"
    parts = [tuple(map(int, part)) for part in re.findall(line, done.stdout, re.MULTILINE)]
    return {what: float(loss) for what, loss in losses.items()}, parts


def loss_of(network: Any) -> float:
    tokens = torch.randint(
        network.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(7)
    )
    with torch.no_grad():
        return float(network.eval()(input_ids=tokens, labels=tokens).loss)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A folder grown to some 60 MB in shards of 4 MB, and the loss of what it was grown from."""
    folder = tmp_path_factory.mktemp("folders")
    torch.manual_seed(0)
    small = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=500, max_position_embeddings=32, use_cache=False,
        )
    )  # fmt: skip
    small.save_pretrained(folder / "small")
    n2n.grow_checkpoint(
        folder / "small", folder / "large", verify=False, shards="4MB",
        settings={
            "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6,
            "num_attention_heads": 16, "num_key_value_heads": 8,
        },
    )  # fmt: skip
    return folder / "large", loss_of(small)


def test_no_process_holds_the_whole_model(large: tuple[Path, float]) -> None:
    folder, loss = large
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 8
    losses, parts = started(folder, "--steps", "3", "--save", str(folder / "saved"))
    assert losses["started"] == pytest.approx(loss, abs=1e-4)
    assert losses["trained"] < losses["started"]
    assert len(parts) == 2
    for own, total, memory in parts:
        assert total > 50 * 10**6 and own < 0.51 * total
        assert memory < 0.8 * total, "its part, and a tensor or two on the way"
    saved = list((folder / "saved").rglob("*.safetensors"))
    assert saved, "what was trained is a folder of safetensors again"


def test_tied_weights_and_tables_that_no_file_holds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=32, n_layer=1, n_head=4, n_positions=16, vocab_size=50, bos_token_id=1,
            eos_token_id=1, use_cache=False,
        )
    )  # fmt: skip
    small.save_pretrained(tmp_path / "small")
    done = finished(
        "grow", tmp_path / "small", "--set", "n_embd=48", "--set", "n_head=6",
        "--set", "n_layer=2", "--no-verify", "--shards", "40KB", "-o", tmp_path / "large",
    )  # fmt: skip
    assert done.code == 0, done.err
    files = sorted((tmp_path / "large").glob("*.safetensors"))
    assert len(files) > 3
    assert [file.name for file in files] == [
        f"model-{number + 1:05}-of-{len(files):05}.safetensors" for number in range(len(files))
    ]
    losses, _ = started(tmp_path / "large", "--steps", "0")
    assert losses["started"] == pytest.approx(loss_of(small), abs=1e-4)
