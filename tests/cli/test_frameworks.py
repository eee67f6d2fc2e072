"""``deepen``, ``export`` and ``absorb`` as a user has them: files, messages, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_net2net as n2n
from tests.console import FIXTURES, MESSAGE, finished
from tests.networks import Net

RESNET = FIXTURES / "resnet.dynamo-raw.onnx"
GPT2 = FIXTURES / "gpt2.dynamo-raw.onnx"


def test_deepen_writes_what_onnxruntime_confirmed(tmp_path: Path) -> None:
    target = tmp_path / "deep.onnx"
    done = finished("deepen", GPT2, "--block", "h.*", "--copies", 2, "--spread", "-o", target)
    assert done.code == 0, done.err
    assert "verified: equivalent" in done.out and f"wrote {target}" in done.out
    listed = finished("inspect", target, "--blocks")
    assert [line.split()[0] for line in listed.out.splitlines() if "exact" in line] == [
        f"model.transformer.h.{i}" for i in range(4)
    ]


def test_deepen_after_in_json_and_dry(tmp_path: Path) -> None:
    target = tmp_path / "deep.onnx"
    done = finished("deepen", RESNET, "--after", "layer1.0.conv1", "--kernel", "1x3",
                    "--dry-run", "--json", "-o", target)  # fmt: skip
    assert done.code == 0 and not target.exists()
    (change,) = json.loads(done.out)["changes"]
    assert (change["init"], change["training"]) == ("identity", True)
    done = finished("deepen", RESNET, "--after", "layer1.0.conv1", "--norm", "--dry-run")
    assert done.code == 0 and "inference only: no calibration data" in done.out


def test_calibration_data_comes_from_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "batch.npz", x=rng.normal(size=(4, 3, 40, 36)).astype(np.float32))
    done = finished("deepen", RESNET, "--after", "layer1.0.conv1", "--calibrate",
                    tmp_path / "batch.npz", "-o", tmp_path / "deep.onnx")  # fmt: skip
    assert done.code == 0 and "no calibration data" not in done.out, done.err
    assert "layer1.0.conv1_deeper_norm.weight" in n2n.load(tmp_path / "deep.onnx").weights


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("deepen", RESNET), 2, "nothing to deepen"),
        (("deepen", RESNET, "--after", "nowhere"), 2, "no node, tensor, parameter or module"),
        (("deepen", RESNET, "--block", "layer9.1"), 2, "there is no block"),
        (("deepen", RESNET, "--after", "fc", "--init", "identity"), 1, "is not what an activation"),
        (("deepen", RESNET, "--after", "fc", "--kernel", "0"), 2, "is not a window"),
        (("export", RESNET, "--to", "torch", "--like", "x"), 2, "--to safetensors"),
        (("export", RESNET, "--to", "keras", "-o", "x.h5"), 2, "Keras writes .keras files"),
        (("export", "missing.onnx", "--to", "torch"), 2, "no such file"),
        (("absorb", RESNET, "missing.safetensors"), 2, "missing.safetensors"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: tuple, code: int, problem: str) -> None:
    done = finished(*arguments, cwd=tmp_path)
    said = MESSAGE.fullmatch(done.err)
    assert done.code == code and said, done.err
    assert problem in said["problem"] and said["remedy"]
    assert not list(tmp_path.iterdir())


def test_export_to_torch_gives_a_package_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder = tmp_path / "package"
    done = finished("export", RESNET, "--to", "torch", "-o", folder)
    assert done.code == 0 and "verified: equivalent" in done.out, done.err
    assert sorted(path.name for path in folder.iterdir()) == ["model.py", "model.safetensors"]
    code = "from model import load; import torch; print(load()(torch.zeros(2, 3, 40, 36)).shape)"
    alone = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env={}
    )
    assert "torch.Size([2, 9])" in alone.stdout, alone.stderr
    again = finished("export", RESNET, "--to", "torch", "-o", folder)
    assert again.code == 2 and "exists" in again.err
    assert finished("export", RESNET, "--to", "torch", "-o", folder, "--force").code == 0


def test_export_says_what_it_did_not_verify(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    reason, folder = "onnxruntime cannot run bfloat16 here", tmp_path / "package"
    model = next(FIXTURES.glob("*.bfloat16.onnx"))
    done = finished("export", model, "--to", "torch", "-o", folder)
    assert done.code == 0 and done.err == ""
    assert done.out.splitlines()[0] == f"not verified: {reason}"
    done = finished("export", model, "--to", "torch", "-o", folder, "--force", "--json")
    said = json.loads(done.out)
    assert said == {"verification": None, "unverified": reason, "output": str(folder)}
    done = finished("export", RESNET, "--to", "torch", "-o", folder, "--force", "--no-verify")
    assert done.out.splitlines()[0] == "not verified: --no-verify"
    done = finished("export", RESNET, "--to", "torch", "-o", folder, "--force", "--json")
    assert json.loads(done.out).keys() == {"verification", "output"}
    weights = tmp_path / "weights.safetensors"
    done = finished("export", RESNET, "--to", "safetensors", "-o", weights, "--json")
    assert json.loads(done.out) == {"verification": None, "output": str(weights)}


def test_trained_weights_come_back(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    weights = tmp_path / "weights.safetensors"
    assert finished("export", RESNET, "--to", "safetensors", "-o", weights).code == 0
    values = safetensors.load_file(weights)
    values["fc.bias"] = values["fc.bias"] + 1
    safetensors.save_file(values, weights)
    target = tmp_path / "trained.onnx"
    done = finished("absorb", RESNET, weights, "-o", target)
    assert done.code == 0 and f"wrote {target}" in done.out, done.err
    trained = n2n.load(target).weights["fc.bias"].array()
    np.testing.assert_array_equal(trained, n2n.load(RESNET).weights["fc.bias"].array() + 1)


def test_export_to_keras_and_back(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    target = tmp_path / "network.keras"
    done = finished("export", RESNET, "--to", "keras", "-o", target)
    assert done.code == 0 and "verified: equivalent" in done.out, done.err
    assert done.err == ""
    back = finished("absorb", RESNET, target, "-o", tmp_path / "back.onnx", "--json")
    assert back.err == "" and json.loads(back.out)["weights"] == 67
    assert n2n.verify(RESNET, tmp_path / "back.onnx")


@pytest.mark.parametrize("names", [("cls", "reg"), ("reg", "cls")])
def test_several_outputs_are_written_and_compared(names: tuple[str, str], tmp_path: Path) -> None:
    """In the order of the alphabet they are a dictionary in Keras, else a list."""
    pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    net = Net()
    x = net.input("batch", 4)
    first, second = (net("MatMul", x, net.weight(4, width)) for width in (3, 2))
    model = net.model(first, second)
    for old, new in zip((first, second), names, strict=True):
        model.graph.node.append(onnx.helper.make_node("Identity", [old], [new]))
        next(v for v in model.graph.output if v.name == old).name = new
    onnx.save(model, tmp_path / "two.onnx")
    done = finished("export", tmp_path / "two.onnx", "--to", "keras", "-o", tmp_path / "two.keras")
    assert done.code == 0 and "verified: equivalent" in done.out, done.err


def test_export_to_a_path_that_is_no_text(tmp_path: Path) -> None:
    target = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    done = finished("export", RESNET, "--to", "torch", "-o", target)
    assert done.code == 2 and "no UTF-8 text" in done.err, done.err
    assert not list(tmp_path.iterdir())
