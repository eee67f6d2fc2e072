"""Blocks are found under their authors' names, and copies of them begin as the identity."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.model.history import HISTORY
from onnx_net2net.model.numbers import renumbered
from onnx_net2net.operators import registry
from tests.console import FIXTURES
from tests.judging import subject

segments = import_module("onnx_net2net.deepening.segments")
NAMES = sorted(path.name for path in FIXTURES.glob("*.onnx"))
# What authors call the blocks of these networks, by the start of the fixtures' names.
EXPECTED = {
    "bert-classic.ts11": ["layer.0", "layer.1"],
    "bert.dynamo": ["model.bert.encoder.layer.0", "model.bert.encoder.layer.1"],
    "bloom": ["model.transformer.h.0"],
    "convnext": ["stages.0.0", "stages.0.1", "stages.1.0"],
    "gpt-neox": ["model.gpt_neox.layers.0"],
    "gpt2.dynamo": ["model.transformer.h.0", "model.transformer.h.1"],
    "gptj": ["model.transformer.h.0"],
    "llama.dynamo": ["model.model.layers.0", "model.model.layers.1"],
    "llama.ts17": ["model.model.layers.0", "model.model.layers.1"],
    "mobilenetv3": ["features.1", "features.3"],
    "qwen3": ["model.model.layers.0"],
    "resnet-bottleneck": ["layer1.1", "layer2.1"],
    "resnet.": ["layer1.0", "layer1.1", "layer2.1"],
    "resnext": ["layer1.1", "layer2.1"],
    "swin": ["layers.0", "layers.1", "layers.3"],
    "t5": ["model.encoder.block.0", "model.decoder.block.0"],
    "vit-mha": ["layers.0", "layers.1"],
    "vit.": ["blocks.0", "blocks.1"],
}


def fixture(name: str) -> n2n.Model:
    return n2n.load(FIXTURES / name)


def exact(model: n2n.Model) -> list[n2n.Block]:
    return [block for block in n2n.blocks(model) if block.exact]


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(tuple(EXPECTED))])
def test_blocks_have_their_authors_names(name: str) -> None:
    expected = next(names for start, names in EXPECTED.items() if name.startswith(start))
    found = exact(subject(name).model)
    assert [block.name for block in found] == expected
    for block in found:
        assert block.name == f"{block.series}.{block.index}"
        assert block.nodes and block.parameters and block.input != block.output


@pytest.mark.parametrize("name", NAMES)
def test_copies_of_every_block_are_the_identity(name: str) -> None:
    """All blocks at once, two copies each; and nothing else of the network changes."""
    source = subject(name)
    found = exact(source.model)
    if not found:
        pytest.skip("no blocks")
    deeper = n2n.deepen(source.model, block=[block.name for block in found], copies=2)
    report = source.judge(deeper)
    assert report, report.verdict
    assert len(exact(deeper)) == 3 * len(found)


def test_copies_take_their_place_in_the_series() -> None:
    """As the author's class with more layers names its parameters."""
    model = fixture("gpt2.dynamo-raw.onnx")
    deeper = n2n.deepen(model, block="h.0", copies=2)
    suffixes = [
        {name.split(f".h.{i}.")[1] for name in deeper.weights if f".h.{i}." in name}
        for i in range(4)
    ]
    assert suffixes[0] and all(found == suffixes[0] for found in suffixes)
    (change,) = deeper.changes
    old, new = "model.transformer.h.1.mlp.c_fc.weight", "model.transformer.h.3.mlp.c_fc.weight"
    assert change.renames[old] == new
    np.testing.assert_array_equal(model.weights[old].array(), deeper.weights[new].array())


def test_numbers_stay_on_request() -> None:
    model = fixture("gpt2.dynamo-raw.onnx")
    deeper = n2n.deepen(model, block="h.0", renumber=False)
    assert model.weights.keys() <= deeper.weights.keys() and not deeper.changes[0].renames
    assert n2n.verify(model, deeper)


def test_only_the_last_projections_are_zero() -> None:
    model = fixture("llama.dynamo-raw.onnx")
    deeper = n2n.deepen(model, block="layers.1")
    for name in deeper.changes[0].parameters:
        zero = not deeper.weights[name].array().any()
        assert zero == name.endswith(("o_proj.weight", "down_proj.weight")), name
        if not zero:
            old = name.replace("layers.2.", "layers.1.")
            np.testing.assert_array_equal(deeper.weights[name].array(), model.weights[old].array())


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("bert.dynamo-raw.onnx", "model.bert.encoder.layer.{}.output.LayerNorm.{}"),
        ("bert-classic.ts11.onnx", "layer.{}.output_norm.{}"),  # in primitive operators
    ],
)
def test_a_post_norm_block_hands_its_affine_map_on(name: str, norm: str) -> None:
    """BERT's: normalising twice is the identity up to epsilon, once the first has no affine."""
    model = fixture(name)
    found = exact(model)
    assert all("epsilon" in (block.reason or "") for block in found)
    deeper = n2n.deepen(model, block="layer.0")
    assert (deeper.weights[norm.format(0, "weight")].array() == 1).all()
    assert not deeper.weights[norm.format(0, "bias")].array().any()
    for part in ("weight", "bias"):
        old, new = norm.format(0, part), norm.format(1, part)
        np.testing.assert_array_equal(deeper.weights[new].array(), model.weights[old].array())
    assert n2n.verify(model, deeper)


@pytest.mark.filterwarnings("ignore")  # of an old exporter
@pytest.mark.parametrize("epsilon", [1e-12, 1e-5])
def test_norms_that_an_exporter_decomposed_are_seen(epsilon: float) -> None:
    """Before opset 17 PyTorch's TorchScript exporter writes LayerNorm in primitive operators."""
    torch = pytest.importorskip("torch", reason="needs the extra [torch]")
    transformers = pytest.importorskip("transformers")

    class Encoder(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, layers: int) -> None:
            super().__init__()
            config = transformers.BertConfig(
                vocab_size=50, hidden_size=12, num_hidden_layers=layers, num_attention_heads=3,
                intermediate_size=20, layer_norm_eps=epsilon, attn_implementation="eager",
            )  # fmt: skip
            self.bert = transformers.BertModel(config, add_pooling_layer=False)

        def forward(self, ids: object) -> object:
            return self.bert(ids).last_hidden_state

    torch.manual_seed(0)
    small, ids = Encoder(2).eval(), torch.randint(0, 50, (2, 7))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    file = io.BytesIO()
    torch.onnx.export(
        small, (ids,), file, opset_version=13, dynamo=False, input_names=["ids"],
        dynamic_axes={"ids": {0: "batch", 1: "length"}},
    )  # fmt: skip
    model = n2n.load(file.getvalue())
    assert "LayerNormalization" not in {node.op_type for node in model.proto.graph.node}
    assert [b.name for b in exact(model)] == [f"bert.encoder.layer.{i}" for i in (0, 1)]
    deeper = n2n.deepen(model, block="layer.0", copies=2)
    assert n2n.verify(model, deeper)
    names = {name for name in Encoder(4).state_dict() if name.endswith("LayerNorm.weight")}
    assert names <= deeper.weights.keys()


@pytest.mark.parametrize("name", ["resnet.dynamo-raw.onnx", "llama.dynamo.onnx", "vit.ts17.onnx"])
def test_widening_after_copying(name: str) -> None:
    model = fixture(name)
    deeper = n2n.deepen(model, block=[block.name for block in exact(model)])
    free = [d for d in n2n.inspect(deeper) if d.growth == "any" and d.width > 1]
    assert n2n.verify(model, n2n.widen(deeper, {d.name: d.width + 2 for d in free}))


def test_blocks_and_layers_in_one_step() -> None:
    model = fixture("resnet.dynamo-raw.onnx")
    deeper = n2n.deepen(model, after="layer1.0.conv1", block="layer1.*")
    assert n2n.verify(model, deeper)
    (step,) = json.loads(deeper.metadata[HISTORY])
    assert (step["after"], step["block"]) == (["layer1.0.conv1"], {"layer1.0": 1, "layer1.1": 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("encoder.layer.3.weight", "encoder.layer.4.weight"),
        ("my_encoder.layer.3.weight", "my_encoder.layer.3.weight"),
        ("['encoder', 'encoder.layer.3', 'encoder.layer.31']", None),
        ("/encoder/layer.3/dense/MatMul", "/encoder/layer.4/dense/MatMul"),
        ("/encoder/layer.3/layer.3.0/Conv", "/encoder/layer.4/layer.4.0/Conv"),
        ("/decoder/layer.3/Add", "/decoder/layer.3/Add"),
        ("onnx::MatMul_3", "onnx::MatMul_3"),
    ],
)
def test_renumbering(text: str, expected: str | None) -> None:
    expected = expected or "['encoder', 'encoder.layer.4', 'encoder.layer.32']"
    assert renumbered(text, "encoder.layer.", lambda n: n + 1) == expected


@pytest.mark.parametrize(
    ("name", "block", "remedy"),
    [
        ("resnet.dynamo-raw.onnx", "layer2.2", "did you mean"),
        ("lenet.dynamo.onnx", "conv1", "single layers"),
    ],
)
def test_what_is_no_block_is_named(name: str, block: str, remedy: str) -> None:
    with pytest.raises(n2n.UsageError, match="there is no block") as caught:
        n2n.deepen(fixture(name), block=block)
    assert caught.value.remedy and remedy in caught.value.remedy


def test_what_cannot_be_copied_is_refused_with_the_reason() -> None:
    with pytest.raises(n2n.Refused, match=r"layer2\.0.*another shape") as caught:
        n2n.deepen(fixture("resnet.dynamo-raw.onnx"), block="layer2.0")
    assert caught.value.remedy and "--after" in caught.value.remedy


def test_a_part_of_a_block_is_copied_by_its_whole_name() -> None:
    """Listed are ConvNeXt's blocks; a stage of two of them can be copied as well."""
    model = fixture("convnext.dynamo.onnx")
    assert "stages.0" not in {block.name for block in n2n.blocks(model)}
    deeper = n2n.deepen(model, block="stages.0")
    assert n2n.verify(model, deeper) and deeper.parameters > model.parameters


# ---- planted faults ------------------------------------------------------------------------------


def test_a_projection_that_is_not_zeroed_is_caught(monkeypatch) -> None:
    whole = segments._exact

    def forgetful(*arguments: object) -> n2n.Block:
        block = whole(*arguments)
        return segments.replace(block, values=block.values[1:])

    monkeypatch.setattr(segments, "_exact", forgetful)
    model = fixture("vit.dynamo.onnx")
    assert not n2n.verify(model, n2n.deepen(model, block="blocks.0"))


def ghost_block() -> n2n.Model:
    """x + Concat(A x, B A x), as GhostNet has it: both halves must vanish."""
    rng = np.random.default_rng(0)
    weights = {
        f"blocks.{i}.{part}.weight": rng.normal(size=shape).astype(np.float32)
        for i in range(2)
        for part, shape in (("primary", (6, 3)), ("cheap", (3, 3)))
    }
    nodes, last = [], "x"
    for i in range(2):
        nodes += [
            helper.make_node("MatMul", [last, f"blocks.{i}.primary.weight"], [f"p{i}"]),
            helper.make_node("MatMul", [f"p{i}", f"blocks.{i}.cheap.weight"], [f"c{i}"]),
            helper.make_node("Concat", [f"p{i}", f"c{i}"], [f"g{i}"], axis=1),
            helper.make_node("Add", [last, f"g{i}"], ["y" if i else "h"]),
        ]
        last = "h"
    graph = helper.make_graph(
        nodes,
        "ghost",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (4, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (4, 6))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = helper.make_opsetid("", 18)
    return n2n.load(helper.make_model(graph, opset_imports=[opset], ir_version=9))


def test_all_that_is_concatenated_must_vanish() -> None:
    model = ghost_block()
    for block in exact(model):
        assert n2n.verify(model, n2n.deepen(model, block=block.name))
    (first, _) = exact(model)
    assert {name for name, _ in first.values} >= {"blocks.0.primary.weight"}
    assert len(first.values) == 2


def test_an_activation_wrongly_taken_for_idempotent_is_caught(monkeypatch) -> None:
    """HardSwish behind a sum: not the identity, whatever vanishes before it."""
    rng = np.random.default_rng(0)
    weights = {
        f"blocks.{i}.fc.weight": rng.normal(size=(6, 6)).astype(np.float32) for i in range(2)
    }
    nodes, last = [helper.make_node("Tanh", ["x"], ["h0"])], "h0"
    for i, name in enumerate(weights):
        nodes += [
            helper.make_node("MatMul", [last, name], [f"m{i}"]),
            helper.make_node("Add", [last, f"m{i}"], [f"s{i}"]),
            helper.make_node("Tanh", [f"s{i}"], [f"h{i + 1}"]),
        ]
        last = f"h{i + 1}"
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", [last], ["y"])],
        "tanh",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (3, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (3, 6))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model = n2n.load(proto)
    for block in exact(model):  # the sum is one, without the activation behind it
        assert n2n.verify(model, n2n.deepen(model, block=block.name))
    key = "", "Tanh"
    monkeypatch.setitem(registry(), key, replace(registry()[key], idempotent=True))
    model = n2n.load(proto)
    assert any(not n2n.verify(model, n2n.deepen(model, block=block.name)) for block in exact(model))
