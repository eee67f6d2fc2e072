"""The shipped fixtures are what the other tests take them for: alive, varied and small."""

from __future__ import annotations

import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests import light_models
from tests.console import ROOT

FOLDER = ROOT / "fixtures"
FILES = sorted(FOLDER.glob("*.onnx"))
SIZES = {"batch": 2, "sequence": 7, "target": 5, "past": 4, "past + sequence": 11, "past + 1": 5}
SMALLEST_VOCABULARY = 29
FLOATS = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
)
# onnxruntime has no bfloat16 kernels on CPU; ONNX's reference implementation runs these.
NOT_ON_CPU = {"mlp.bfloat16.onnx"}


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    """The declared shape, dynamic axes at the sizes above (2 where a name is not known)."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value or SIZES.get(dim.dim_param, 2) for dim in dims]


def make_inputs(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Normal numbers, token ids below every vocabulary, masks of ones, rising positions."""
    rng = np.random.default_rng(seed)
    weights = {item.name for item in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        shape = shape_of(value)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if "mask" in value.name:
            feed = np.ones(shape)
        elif value.name == "position_ids":
            feed = np.broadcast_to(np.arange(shape[-1]), shape)
        elif value.name == "token_type_ids":
            feed = rng.integers(0, 2, shape)
        elif np.issubdtype(dtype, np.integer):
            feed = rng.integers(0, SMALLEST_VOCABULARY, shape)
        else:
            feed = rng.normal(size=shape)
        feeds[value.name] = feed.astype(dtype)
    return feeds


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray], on_cpu: bool) -> list[np.ndarray]:
    """All outputs of one run."""
    if not on_cpu:
        return ReferenceEvaluator(model).run(None, feeds)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def assert_alive(model: onnx.ModelProto, on_cpu: bool = True) -> None:
    """Every float output is finite and depends on the input."""
    first = run(model, make_inputs(model, seed=1), on_cpu)
    second = run(model, make_inputs(model, seed=2), on_cpu)
    for value, a, b in zip(model.graph.output, first, second, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype != ml_dtypes.bfloat16 and not np.issubdtype(a.dtype, np.floating):
            continue  # a class label may well be the same
        a, b = a.astype(np.float64), b.astype(np.float64)
        assert np.isfinite(a).all() and np.isfinite(b).all(), value.name
        moved = np.abs(a - b).max() / max(np.abs(a).max(), 1e-6)
        assert moved > 0.02, f"{value.name}: two inputs differ by only {moved:.1e} of the output"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_runs_and_depends_on_its_input(path: Path) -> None:
    assert_alive(onnx.load(path), on_cpu=path.name not in NOT_ON_CPU)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_the_identity_by_accident(path: Path) -> None:
    constant = []
    for item in onnx.load(path).graph.initializer:
        # The dynamo exporter feeds ones to an InstanceNormalization whose scale comes later.
        if item.name.startswith("val_"):
            continue
        if item.data_type in FLOATS and np.prod(item.dims) > 3:
            value = numpy_helper.to_array(item).astype(np.float64)
            if np.ptp(value) == 0:
                constant.append(item.name)
    assert not constant, f"{path.name}: all elements equal in {constant}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_is_one_file_without_stack_traces(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    assert not any(item.data_location for item in model.graph.initializer)
    assert b"stack_trace" not in path.read_bytes()


def test_stays_small() -> None:
    sizes = {path.name: path.stat().st_size for path in FILES}
    assert max(sizes.values()) < 200_000, max(sizes, key=sizes.get)
    assert sum(sizes.values()) < 5_000_000


def test_every_fixture_is_described() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in FILES if f"`{path.name}`" not in readme]
    assert not missing, "run `python fixtures/makers/make.py --readme`"


@pytest.mark.parametrize("network", ["resnet", "bert", "gpt2", "llama", "vit"])
def test_both_exporters_and_the_unoptimised_graph_are_there(network: str) -> None:
    exporters = {path.name.split(".")[1] for path in FILES if path.name.startswith(f"{network}.")}
    assert {"dynamo", "dynamo-raw", "ts17"} <= exporters


def test_exports_of_one_network_agree() -> None:
    """Different exporters of the same module, seeded alike, are the same function."""
    for network in ("resnet", "bert", "llama"):
        outputs = []
        for path in sorted(FOLDER.glob(f"{network}.*.onnx")):
            model = onnx.load(path)
            if model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16:
                continue
            outputs.append(run(model, make_inputs(model, seed=zlib.crc32(b"x")), True)[0])
        assert len(outputs) >= 4
        for other in outputs[1:]:
            np.testing.assert_allclose(other, outputs[0], atol=2e-5 * np.abs(outputs[0]).max())


@pytest.mark.parametrize("name", ["inception_v1", "inception_v2", "squeezenet"])
def test_light_models_filled_at_random_are_alive(name: str) -> None:
    model = light_models.fill(name)
    onnx.checker.check_model(model)
    assert not [n for n in model.graph.node if n.op_type == "ConstantOfShape"]
    # Half of these networks end in a softmax over 1000 classes, some in a dead or saturated one
    # if the weights are badly scaled.
    assert_alive(model)
    assert run(model, make_inputs(model, seed=1), True)[0].max() < 0.9


def test_dead_network_is_caught() -> None:
    """The test above can fail: a fixture whose last weight is zero does not pass."""
    model = onnx.load(FOLDER / "mlp.ts17.onnx")
    weight = next(item for item in model.graph.initializer if item.name == "fc3.weight")
    weight.raw_data = bytes(len(weight.raw_data))
    with pytest.raises(AssertionError, match="differ by only"):
        assert_alive(model)
