"""What is trained, and what it is called: by the exporter's word, by use, by contents."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.frameworks.constant_detection import computed, follows_formula, triangular
from onnx_net2net.frameworks.paths import TAKEN, unique_paths
from onnx_net2net.frameworks.roles import KIND, Role, paths, roles
from onnx_net2net.model.model import Model, load
from onnx_net2net.widening.widen import widen
from tests.console import ROOT

FIXTURES = sorted((ROOT / "fixtures").glob("*.onnx"))
QUANTIZED = ("qdq", "int8")


def elements(model: Model, role: Role) -> int:
    return sum(model.weights[name].size for name, found in roles(model).items() if found is role)


def small(nodes: list, weights: dict[str, np.ndarray], said: dict[str, str] | None = None) -> Model:
    """A model of these nodes from ``x`` to ``y``."""
    graph = helper.make_graph(
        [helper.make_node(op, given, made, **more) for op, given, made, more in nodes],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    for entry in graph.initializer:
        if said and entry.name in said:
            entry.metadata_props.add(key=KIND, value=said[entry.name])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def role(op: str, array: np.ndarray, *, said: str = "", **more: int) -> Role:
    """The role of ``w`` in: x, through Relu, op w."""
    nodes = [("Relu", ["x"], ["h"], {}), (op, ["h", "w"], ["y"], more)]
    return roles(small(nodes, {"w": array}, {"w": said} if said else None))["w"]


# ---- real files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet.dynamo-raw", "resnet.ts17-raw", "resnet.float16"])
def test_unfolded_resnet_has_exactly_the_parameters_of_its_author(name: str) -> None:
    found = roles(load(ROOT / "fixtures" / f"{name}.onnx"))
    by_role = {which: {n for n, r in found.items() if r is which} for which in Role}
    kinds = ("weight", "bias")
    assert by_role[Role.STATISTIC] == {n for n in found if ".running_" in n}
    assert by_role[Role.PARAMETER] == {n for n in found if n.endswith(kinds)}
    assert len(by_role[Role.PARAMETER]) == 41
    assert len(by_role[Role.STATISTIC]) == 26


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "vit"])
def test_unfolded_transformers_have_exactly_the_parameters_of_their_author(name: str) -> None:
    found = roles(load(ROOT / "fixtures" / f"{name}.dynamo-raw.onnx"))
    own = {n for n in found if "." in n or n in ("cls_token", "pos_embed")}
    buffers = {n for n in own if n.endswith(("inv_freq", "position_ids"))}
    assert {n for n, r in found.items() if r is Role.PARAMETER} == own - buffers
    assert Role.STATISTIC not in found.values()


def test_every_exporter_leaves_as_many_learned_numbers() -> None:
    """Folding renames, transposes and merges weights, but neither adds nor loses any."""
    counts: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for path in FIXTURES:
        network, exporter = path.stem.split(".", 1)
        if exporter not in QUANTIZED:
            model = load(path)
            counts[network][exporter] = (
                elements(model, Role.PARAMETER),
                elements(model, Role.STATISTIC),
            )
    # Not folded into convolutions: 13 BatchNormalizations with scales, means and variances.
    for exporter in ("dynamo-raw", "ts17-raw", "float16"):
        assert counts["resnet"].pop(exporter) == (7353, 232)
    assert counts["gpt2"].pop("dynamo-raw") == (7566, 0)  # tied: the head is the embedding
    assert len(counts) > 40
    for network, found in counts.items():
        assert len(set(found.values())) == 1, (network, found)
        assert min(found.values())[0] > 100


@pytest.mark.parametrize("name", ["lenet.qdq", "mlp.int8"])
def test_quantized_weights_and_scales_are_constants(name: str) -> None:
    model = load(ROOT / "fixtures" / f"{name}.onnx")
    trained = {n for n, r in roles(model).items() if r is not Role.CONSTANT}
    assert trained == ({"fc1.bias", "fc3.bias"} if name == "mlp.int8" else set())


def test_frequencies_of_rotary_embeddings_are_constants() -> None:
    for path in FIXTURES:
        for name, found in roles(load(path)).items():
            if "inv_freq" in name or "rotary_emb/Constant" in name:
                assert found is Role.CONSTANT, (path.stem, name)


# ---- the exporter's word ------------------------------------------------------------------------


def test_what_the_exporter_recorded_decides() -> None:
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    assert role("Add", mask) is Role.CONSTANT
    assert role("Add", mask, said="PARAMETER") is Role.PARAMETER
    assert role("MatMul", drawn(8, 5)) is Role.PARAMETER
    assert role("MatMul", drawn(8, 5), said="BUFFER") is Role.CONSTANT
    assert role("Mul", np.float32([2.0]), said="PARAMETER") is Role.PARAMETER


def test_running_statistics_are_statistics_though_recorded_as_buffers() -> None:
    names = ["gamma", "beta", "mean", "var"]
    nodes = [("BatchNormalization", ["x", *names], ["y"], {})]
    model = small(nodes, {n: np.ones(8, np.float32) for n in names}, dict.fromkeys(names, "BUFFER"))
    found = roles(model)
    assert [found[n] for n in names] == [Role.CONSTANT] * 2 + [Role.STATISTIC] * 2


def test_shares_that_growing_inserted_are_constants() -> None:
    model = load(ROOT / "fixtures" / "bert-classic.ts11.onnx")
    grown = widen(model, {"embeddings.word_embeddings": 30})
    inserted = set(grown.history[-1]["inserted"])
    assert inserted and inserted <= grown.weights.keys()
    found = roles(load(grown.to_bytes()))
    assert {found[name] for name in inserted} == {Role.CONSTANT}
    assert {n for n, r in found.items() if r is Role.PARAMETER} == {
        n for n, r in roles(model).items() if r is Role.PARAMETER
    }


# ---- contents -----------------------------------------------------------------------------------

STEPS = np.arange(24)[:, None]
ANGLES = STEPS / 10000 ** (np.arange(4) / 4)
GRID = np.stack(np.meshgrid(np.arange(6), np.arange(4)), -1).reshape(24, 2)
TABLES = {
    "ramp": STEPS * np.float32([0.5, 0.1]),
    "decay": 0.9**STEPS * np.float32([1, 3]),
    "cos": np.cos(ANGLES),
    "sin": np.sin(ANGLES),
    "halves": np.concatenate([np.sin(ANGLES), np.cos(ANGLES)], 1),
    "interleaved": np.stack([np.sin(ANGLES), np.cos(ANGLES)], -1).reshape(24, 8),
    "grid": GRID + 0.5,
    "grid of sines": np.concatenate(
        [f(GRID[:, i : i + 1] * np.float32([0.3, 0.05])) for i in (0, 1) for f in (np.sin, np.cos)],
        1,
    ),
    "lowest": np.triu(np.full((24, 24), np.finfo(np.float32).min), 1),
    "windows": np.where(GRID[:, :1] == GRID[:, 0], 0.0, -100.0),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tables_of_formulas_are_constants(name: str, dtype: type) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        table = TABLES[name].astype(dtype)
        regular = np.nan_to_num(table / np.abs(table).max())
    assert computed(table)
    assert computed(table.T[None])
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, table.shape)
    noisy = (regular + noise).astype(dtype)
    assert not computed(noisy), "learned tables are not that regular"


def test_learned_tensors_of_all_kinds_are_not_taken_for_formulas() -> None:
    for shape in ((24, 8), (1, 24, 8), (3,), (24,), (8, 1, 1), (1, 3, 4, 4), (2, 2), (200, 64)):
        for array in (drawn(*shape), np.zeros(shape), np.ones(shape), np.full(shape, 0.02)):
            assert not computed(array), (shape, array.flat[:2])


def test_unit_matrices_are_learned_and_running_sums_are_not() -> None:
    """A layer inserted as the identity trains on; a matrix of ones below the diagonal sums."""
    assert role("MatMul", np.eye(8, dtype=np.float32)) is Role.PARAMETER
    assert role("MatMul", np.zeros((8, 8), np.float32)) is Role.PARAMETER
    assert role("MatMul", np.tril(np.ones((8, 8), np.float32))) is Role.CONSTANT
    assert triangular(np.tri(8).T) and not triangular(np.eye(8)) and not triangular(drawn(8, 8))
    assert not follows_formula(np.eye(8))


# ---- use ----------------------------------------------------------------------------------------


def test_places_that_take_any_contents() -> None:
    """What starts as ones or zeros is learned where only weights come in."""
    for op, more in (("LayerNormalization", {}), ("PRelu", {}), ("Add", {}), ("Mul", {})):
        for fill in (0, 1, 0.5):
            assert role(op, np.full(8, fill, np.float32), **more) is Role.PARAMETER, op


def test_single_numbers_in_arithmetic_are_constants() -> None:
    for op in ("Add", "Mul", "Div", "Sub", "Pow"):
        assert role(op, np.float32(0.5)) is Role.CONSTANT
        assert role(op, np.float32([0.5])) is Role.CONSTANT
    nodes = [("MatMul", ["x", "w"], ["h"], {}), ("Add", ["h", "b"], ["y"], {})]
    found = roles(small(nodes, {"w": drawn(8, 1), "b": drawn(1)}))
    assert found["b"] is Role.PARAMETER, "the bias of one output"


def test_single_numbers_with_an_authors_name_are_learned() -> None:
    """As PaddlePaddle's learnable affine blocks have, which the older exporter tells nothing of."""
    nodes = [("Relu", ["x"], ["h"], {}), ("Mul", ["h", "stem.act.scale"], ["y"], {})]
    assert roles(small(nodes, {"stem.act.scale": drawn(1)}))["stem.act.scale"] is Role.PARAMETER
    nodes = [("Relu", ["x"], ["h"], {}), ("Mul", ["h", "/stem/Constant_output_0"], ["y"], {})]
    assert set(roles(small(nodes, {"/stem/Constant_output_0": drawn(1)})).values()) == {
        Role.CONSTANT
    }


def test_standardised_weights_are_no_statistics() -> None:
    """As timm standardises: BatchNormalization of the weight itself, by its own mean."""
    nodes = [
        ("Unsqueeze", ["w", "zero"], ["rows"], {}),
        ("ReduceMean", ["rows"], ["mean"], {"axes": [0, 2], "keepdims": 0}),
        ("BatchNormalization", ["rows", "one", "none", "mean", "one"], ["n"], {}),
        ("Squeeze", ["n", "zero"], ["unit"], {}),
        ("MatMul", ["x", "unit"], ["y"], {}),
    ]
    weights = {"w": drawn(8, 5), "zero": np.array([0]), "one": np.ones(8), "none": np.zeros(8)}
    weights |= {name: weights[name].astype(np.float32) for name in ("one", "none")}
    assert roles(small(nodes, weights))["w"] is Role.PARAMETER


def test_distances_that_are_multiplied_are_constants() -> None:
    distances = np.abs(np.arange(8)[:, None] - np.arange(8)).astype(np.float32)
    assert role("MatMul", distances) is Role.CONSTANT
    assert role("MatMul", drawn(8, 8).round(1)) is Role.PARAMETER


def test_normalisation_of_inputs_is_constant() -> None:
    nodes = [("Sub", ["x", "mean"], ["c"], {}), ("Div", ["c", "std"], ["h"], {}),
             ("MatMul", ["h", "w"], ["p"], {}), ("Mul", ["p", "gamma"], ["y"], {})]  # fmt: skip
    weights = {"mean": drawn(8), "std": drawn(8), "w": drawn(8, 8), "gamma": drawn(8)}
    found = roles(small(nodes, weights))
    assert {n for n, r in found.items() if r is Role.PARAMETER} == {"w", "gamma"}


def test_weights_are_followed_through_views_and_arithmetic_of_weights() -> None:
    nodes = [
        ("Transpose", ["v"], ["t"], {}),
        ("ReduceL2", ["t"], ["norm"], {}),
        ("Add", ["norm", "eps"], ["safe"], {}),
        ("Div", ["t", "safe"], ["unit"], {}),
        ("MatMul", ["x", "unit"], ["y"], {}),
    ]
    found = roles(small(nodes, {"v": drawn(5, 8), "eps": np.float32([1e-6])}))
    assert found == {"v": Role.PARAMETER, "eps": Role.CONSTANT}


def test_integers_and_shapes_of_weights_are_constants() -> None:
    nodes = [("Shape", ["w"], ["s"], {}), ("Gather", ["s", "i"], ["y"], {})]
    found = roles(small(nodes, {"w": drawn(8, 8), "i": np.array([0])}))
    assert set(found.values()) == {Role.CONSTANT}


# ---- paths --------------------------------------------------------------------------------------


def test_paths_are_names_wherever_they_can_be() -> None:
    for path in FIXTURES:
        model = load(path)
        found = paths(model)
        assert found.keys() == model.weights.keys()
        values = list(found.values())
        assert len(set(values)) == len(values)
        folders = {".".join(p.split(".")[:i]) for p in values for i in range(1, p.count(".") + 1)}
        assert not folders & set(values)
        for name, dotted in found.items():
            assert dotted.replace(".", "").replace("_", "").isalnum()
            plain = name.replace(".", "").replace("_", "").isalnum()
            if plain and not TAKEN & set(name.split(".")):
                assert dotted == name, (path.stem, name)


def test_paths_of_odd_names() -> None:
    assert unique_paths(["a/b:0", "a b 0"]) == {"a/b:0": "a_b_0", "a b 0": "a_b_0_2"}
    assert unique_paths(["a", "a.b", "a.c"]) == {"a": "a", "a.b": "a_2.b", "a.c": "a_2.c"}
    assert unique_paths(["a.b", "a"]) == {"a.b": "a.b", "a": "a_2"}
    assert unique_paths(["..x..y.", "", "."]) == {"..x..y.": "x.y", "": "tensor", ".": "tensor_2"}
    assert unique_paths(["__init__", "_parameters.x", "__class__._x", "\u540d\u524d", "_"]) == {
        "__init__": "_init__", "_parameters.x": "_parameters_.x", "__class__._x": "_class__._x",
        "\u540d\u524d": "tensor", "_": "tensor_2",
    }  # fmt: skip
    assert unique_paths(["graph.forward.weight"]) == {
        "graph.forward.weight": "graph_.forward_.weight"
    }


def test_parameters_choose_their_paths_first() -> None:
    nodes = [("Add", ["x", "w:0"], ["h"], {}), ("MatMul", ["h", "w_0"], ["y"], {})]
    model = small(nodes, {"w:0": np.tri(8, dtype=np.float32), "w_0": drawn(8, 8)})
    assert paths(model) == {"w_0": "w_0", "w:0": "w_0_2"}


def test_taken_names_are_those_of_modules() -> None:
    torch = pytest.importorskip("torch")
    module = torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())

    def own(name: str) -> bool:  # other packages hang functions onto torch's modules
        owner = getattr(getattr(module, name, None), "__module__", None) or "torch"
        return not name.startswith("__") and owner.partition(".")[0] in ("torch", "builtins")

    missing = set(filter(own, dir(module))) - TAKEN
    assert not missing
