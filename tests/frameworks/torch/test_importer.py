"""Every fixture as a PyTorch module: it computes what the file does."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

from onnx_net2net.frameworks.roles import Role, paths, roles
from onnx_net2net.frameworks.torch import to_torch
from onnx_net2net.model.model import load
from tests.computed_weights import FOLLOWED, REFUSED
from tests.test_fixtures import FILES, NOT_ON_CPU, SIZES, make_inputs
from tests.torch_models import difference, expected, outputs, tolerance


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@cache
def exported(path: Path) -> torch.nn.Module:
    """Return a fixture's module, made once; tests leave it as it is."""
    return to_torch(load(path))


def problems(path: Path, module: torch.nn.Module, seed: int) -> list[str]:
    """Return outputs that differ from onnxruntime's."""
    proto = onnx.load(path)
    feeds = make_inputs(proto, seed)
    pairs = zip(
        expected(proto, feeds, path.name not in NOT_ON_CPU), outputs(module, feeds), strict=True
    )
    limit = tolerance(proto)
    names = [value.name for value in proto.graph.output]
    differences = {n: difference(a, b) for n, (a, b) in zip(names, pairs, strict=True)}
    return [f"{n}: {value:.1e}" for n, value in differences.items() if value > limit]


def untidy(source: str) -> list[str]:
    """Return what a reader would stumble over in a generated file."""
    tree = ast.parse(source)
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    found = sorted({f"{name} twice" for name in defined if defined.count(name) > 1})
    found += [] if ast.get_docstring(tree) else ["no docstring"]
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    found += sorted(f"{name} is not named" for name in names if name.startswith("_v"))
    return found + [line for line in source.splitlines() if len(line) > 100]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_computes_what_the_file_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = exported(path)
    assert not module.training
    assert untidy(module.source) == []
    assert problems(path, module, 1) == []
    # Other sizes of whatever is dynamic.
    for name, size in {"batch": 3, "sequence": 9, "target": 6, "past": 2}.items():
        monkeypatch.setitem(SIZES, name, size)
    monkeypatch.setitem(SIZES, "past + sequence", 11)
    monkeypatch.setitem(SIZES, "past + 1", 3)
    assert problems(path, module, 2) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_weights_keep_names_values_and_roles(path: Path) -> None:
    model, module = load(path), exported(path)
    role, path_of = roles(model), paths(model)
    wanted = {path_of[name]: name for name, r in role.items() if r is not Role.CONSTANT}
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert state.keys() == wanted.keys()
    for key, name in wanted.items():
        value = state[key].float().numpy()
        np.testing.assert_array_equal(value, model.weights[name].array().astype(np.float32))
    trained = {key for key, _ in module.named_parameters()}
    assert trained == {path_of[name] for name, r in role.items() if r is Role.PARAMETER}


def test_a_planted_fault_is_seen() -> None:
    path = next(p for p in FILES if p.name == "mlp.ts17.onnx")
    module = to_torch(load(path))
    with torch.no_grad():
        module.get_parameter("fc1.weight")[[0, 1]] = module.get_parameter("fc1.weight")[[1, 0]]
    assert problems(path, module, 1)


def test_a_cache_that_samples_fill_to_different_lengths() -> None:
    """Random masks: what lies beyond a sample's own length comes out as zeros."""
    from onnx_net2net.frameworks.verify_export import agreement

    model = load(next(p for p in FILES if p.name == "gqa.handmade.onnx"))
    module, names = to_torch(model), [value.name for value in model.proto.graph.output]
    report = agreement(
        model, lambda feeds: dict(zip(names, outputs(module, feeds), strict=True)), seeds=2
    )
    assert report, report.verdict


@pytest.mark.parametrize("name", [*REFUSED, *FOLLOWED])
def test_weights_that_the_graph_computes(name: str) -> None:
    proto = (REFUSED | FOLLOWED)[name].model()
    feeds = make_inputs(proto, 1)
    module = to_torch(load(proto))
    for want, got in zip(expected(proto, feeds), outputs(module, feeds), strict=True):
        assert difference(want, got) < tolerance(proto)
