"""The written package: it runs with PyTorch alone, also on several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file

import onnx_net2net as n2n
from onnx_net2net.frameworks.torch import to_torch, write_package
from tests.test_fixtures import FILES, FOLDER, make_inputs
from tests.torch_models import difference, expected

ALONE = """
import sys
sys.modules["onnx_net2net"] = sys.modules["onnx"] = None
sys.path.insert(0, sys.argv[1])
import numpy, torch
from model import load
given = numpy.load(sys.argv[2])
with torch.no_grad():
    result = load()(*(torch.from_numpy(given[name]) for name in given))
result = result if isinstance(result, tuple) else (result,)
numpy.savez(sys.argv[3], *(value.numpy() for value in result))
"""


def python(code: str, *arguments: object, launcher: tuple[str, ...] = ()) -> str:
    """Run a program apart from everything that is not installed."""
    command = [sys.executable, *(launcher or ("-I", "-c", code)), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", ["resnet.dynamo-raw", "bert.dynamo", "lstm.ts17"])
def test_runs_alone(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.onnx"
    folder = write_package(n2n.load(path), tmp_path / "grown")
    feeds = make_inputs(onnx.load(path), 1)
    np.savez(tmp_path / "given.npz", **feeds)
    python(ALONE, folder, tmp_path / "given.npz", tmp_path / "result.npz")
    result = np.load(tmp_path / "result.npz")
    for want, got in zip(expected(onnx.load(path), feeds), result.values(), strict=True):
        assert difference(want, got) < 2e-5


def test_weights_are_the_state(tmp_path: Path) -> None:
    model = n2n.load(FOLDER / "bert.dynamo.onnx")
    write_package(model, tmp_path / "grown")
    stored = load_file(tmp_path / "grown" / "model.safetensors")
    module = to_torch(model)
    module.load_state_dict(stored)
    assert all(torch.equal(stored[k], v) for k, v in module.state_dict().items())


def test_source_passes_the_linter(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    for path in FILES[::9]:
        source = to_torch(n2n.load(path)).source
        (tmp_path / f"{path.name.replace('.', '_').replace('-', '_')}.py").write_text(source)
    rules = "E,F,W,I,UP,B"
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", rules]
    options = ["--line-length", "100", "--output-format", "concise", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_existing_files_are_kept(tmp_path: Path) -> None:
    model = n2n.load(FOLDER / "mlp.ts17.onnx")
    (tmp_path / "model.py").write_text("mine")
    with pytest.raises(n2n.OutputError, match=r"model\.py"):
        write_package(model, tmp_path, force=False)
    assert [p.name for p in tmp_path.iterdir()] == ["model.py"]
    write_package(model, tmp_path)
    assert (tmp_path / "model.py").read_text() != "mine"


def unknown(*operators: str) -> n2n.Model:
    """Return a network of operators that nobody knows."""
    nodes = [
        helper.make_node(op, [f"t{i}"], [f"t{i + 1}"], name=f"n{i}", domain="nowhere")
        for i, op in enumerate(operators)
    ]
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3])
        for name in ("t0", f"t{len(operators)}")
    ]
    graph = helper.make_graph(nodes, "unknown", value[:1], value[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    return n2n.load(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def test_all_that_is_unknown_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(n2n.Refused) as error:
        write_package(unknown("Foo", "Bar"), tmp_path / "grown")
    for text in ("Foo 'n0'", "Bar 'n1'", "nowhere.Foo", "nowhere.Bar"):
        assert text in str(error.value)
    assert not (tmp_path / "grown").exists()


# ---- several processes --------------------------------------------------------------------------

DISTRIBUTED = """
import json, sys, torch
from importlib.util import module_from_spec, spec_from_file_location
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

distributed.init_process_group("gloo")
rank, world = distributed.get_rank(), distributed.get_world_size()
mesh = init_device_mesh("cpu", (world,))
wraps = {
    "alone": lambda model: model,
    "ddp": nn.parallel.DistributedDataParallel,
    "fsdp": lambda model: fully_shard(model, mesh=mesh),
}


def losses(load, given, mode):
    model = wraps[mode](load().train())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    found = []
    for step in range(3):
        parts = given if mode == "alone" else [x.chunk(world)[rank] for x in given]
        loss = model(*parts).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = loss.detach() / world
        distributed.all_reduce(total)
        found.append(float(total))
    return found


report = {}
for folder in sys.argv[2:]:
    spec = spec_from_file_location("model", folder + "/model.py")
    package = module_from_spec(spec)
    spec.loader.exec_module(package)
    torch.manual_seed(0)
    ids = torch.randint(0, 29, (4, 7))
    given = (ids, torch.ones_like(ids)) if "gpt2" in folder else (torch.randn(4, 11),)
    report[folder] = {mode: losses(package.load, given, mode) for mode in wraps}
if rank == 0:
    open(sys.argv[1], "w").write(json.dumps(report))
distributed.barrier()
distributed.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """DDP and FSDP2 over the same batch give the losses of a single process."""
    folders = [
        write_package(n2n.load(FOLDER / f"{name}.onnx"), tmp_path / name.partition(".")[0])
        for name in ("mlp.ts17", "gpt2.dynamo")
    ]
    script, out = tmp_path / "train.py", tmp_path / "losses.json"
    script.write_text(DISTRIBUTED)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    # Gloo's threads abort a process once in a hundred starts on a busy machine.
    restarts = ("--max-restarts", "2")
    python("", out, *folders, launcher=(*torchrun, *restarts, str(script)))
    for losses in json.loads(out.read_text()).values():
        assert losses["alone"][-1] < losses["alone"][0]
        np.testing.assert_allclose(losses["ddp"], losses["alone"], rtol=1e-5)
        np.testing.assert_allclose(losses["fsdp"], losses["alone"], rtol=1e-5)
