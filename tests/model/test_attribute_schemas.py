"""Attributes are what their operators take, or the file is no model: for every operator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, NodeProto, TensorProto, defs, helper

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model import schemas
from onnx_net2net.model.attributes import check_attributes, check_attributes_as_written
from onnx_net2net.model.model import load
from onnx_net2net.model.validation import OLDEST_OPSET
from tests.samples import RULED
from tests.small_models import small_model

A = AttributeProto
NEWEST = defs.onnx_opset_version()


def known() -> Iterator[tuple[defs.OpSchema, str, AttributeProto.AttributeType]]:
    """Every attribute of every operator, in each version that a model may name."""
    for schema in defs.get_all_schemas_with_history():
        first = 1 if schema.domain else OLDEST_OPSET
        current = schemas.schema(schema.name, schema.domain, max(schema.since_version, first))
        if current is None or current.since_version != schema.since_version:
            continue
        for name, attribute in schema.attributes.items():
            yield schema, name, attribute.type.value


def proto_of(node: NodeProto, version: int) -> onnx.ModelProto:
    opset = helper.make_opsetid(node.domain, version)
    return helper.make_model(helper.make_graph([node], "g", [], []), opset_imports=[opset])


def problem(node: NodeProto, version: int = 17) -> str:
    """What is said of a node; nothing where it is accepted."""
    try:
        check_attributes_as_written(proto_of(node, version))
        check_attributes(proto_of(node, version), {node.domain: version})
    except InvalidModel as error:
        assert error.remedy
        return error.problem
    return ""


def test_every_attribute_of_every_operator_has_its_type() -> None:
    """Text in the place of numbers, and the other way round: refused by name."""
    tried = 0
    for schema, name, kind in known():
        wrong = A.INTS if kind == A.STRING else A.STRING if kind != A.STRINGS else A.INT
        node = helper.make_node(schema.name, [], ["y"], name="n", domain=schema.domain)
        node.attribute.add(name=name, type=wrong)
        said = problem(node, max(schema.since_version, 1))
        assert f"node 'n' ({schema.name}): attribute {name!r} is " in said
        tried += 1
    assert tried > 500


def test_what_schemas_state_by_default_is_accepted() -> None:
    for schema in defs.get_all_schemas():
        given = [a.default_value for a in schema.attributes.values() if a.default_value.name]
        node = helper.make_node(schema.name, [], ["y"], domain=schema.domain)
        node.attribute.extend(given)
        said = problem(node, max(schema.since_version, 1))
        assert not said or "lacks its attribute" in said or "states 0 values" in said


def test_every_text_is_a_choice_or_data() -> None:
    """A new operator's text needs a line in one of the two tables."""
    for schema, name, kind in known():
        if kind in (A.STRING, A.STRINGS) and (schema.name, name) != ("Cast", "to"):
            choice = schemas.texts(schema.name, schema.domain, name) is not None
            assert choice is not (name in schemas.DATA), f"{schema.name} {name}"


@pytest.mark.parametrize("name", sorted(schemas.choices()))
def test_choices_are_closed(name: str) -> None:
    payload = 'none" if open("ran", "w") else "'
    listed = name in ("activations", "nodes_modes")
    for schema, attribute, kind in known():
        if attribute == name and kind in (A.STRING, A.STRINGS):
            node = helper.make_node(schema.name, [], ["y"], domain=schema.domain)
            node.attribute.append(helper.make_attribute(name, [payload] if listed else payload))
            assert "knows" in problem(node, max(schema.since_version, 1))


def contributed() -> dict[str, dict[str, tuple[int, bool]]]:
    """onnxruntime's own schemas of com.microsoft: types, and whether they must be stated."""
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    if not hasattr(state, "get_all_operator_schema"):
        pytest.skip("this build of onnxruntime does not give its schemas")
    return {
        schema.name: {
            name: (
                A.AttributeType.Value(str(attribute.type).rpartition(".")[2]),
                attribute.required,
            )
            for name, attribute in schema.attributes.items()
        }
        for schema in state.get_all_operator_schema()
        if schema.domain == schemas.MICROSOFT
    }


def test_contributed_operators_agree_with_onnxruntime() -> None:
    """Of every operator with a rule: types of all attributes, and those that it needs."""
    found = contributed()
    for domain, op in RULED:
        if domain != schemas.MICROSOFT or op not in found:
            continue
        for name, (kind, _) in found[op].items():
            assert schemas.types(op, domain, 1, name) == {kind}, f"{op} {name}"
        needed = sorted(name for name, (_, required) in found[op].items() if required)
        assert sorted(schemas.required(op, domain, 1)) == needed, op


def test_contributed_types_are_nowhere_else() -> None:
    """Where the table knows a name, it is right for every operator that onnxruntime has."""
    for op, attributes in contributed().items():
        for name, (kind, _) in attributes.items():
            assert schemas.types(op, schemas.MICROSOFT, 1, name) <= {kind}, f"{op} {name}"


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=["1"]), "is STRINGS where Conv takes"),
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[1, 0]), "is [1, 0]; the least is 1"),
        (helper.make_node("Conv", ["x", "w"], ["y"], group=0), "is 0; the least is 1"),
        # onnxruntime takes 3 for "no", Python for "yes".
        (helper.make_node("ReduceMean", ["x"], ["y"], noop_with_empty_axes=3), "it is 0 or 1"),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=-1), "it is 0 or 1"),
        (helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1], strides=[1, 1]), "lengths"),
        (helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1]), "lengths"),
        (helper.make_node("Celu", ["x"], ["y"], alpha=float("nan")), "no number to compute with"),
        (helper.make_node("Selu", ["x"], ["y"], gamma=float("inf")), "no number to compute with"),
        (helper.make_node("Cast", ["x"], ["y"], to=99), "99, which is no element type"),
        (helper.make_node("Cast", ["x"], ["y"]), "lacks its attribute 'to'"),
        (helper.make_node("Scan", ["x"], ["y"]), "lacks its attribute"),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2]), "no permutation"),
        (helper.make_node("Einsum", ["x"], ["y"], equation='ij")->ij'), "is no equation"),
        (helper.make_node("Einsum", ["x"], ["y"], equation="ij,\njk"), "is no equation"),
        (helper.make_node("Einsum", ["x"], ["y"], equation="i..j->i"), "is no equation"),
        (helper.make_node("Einsum", ["x"], ["y"], equation="i->j->k"), "is no equation"),
        (helper.make_node("Einsum", ["x"], ["y"], equation="...ij , j k->... ik"), ""),
        (helper.make_node("Pad", ["x"], ["y"], mode=b"\xff"), "is no UTF-8"),
        (helper.make_node("Constant", [], ["y"], value_int=1, value_float=1.0), "states 2 values"),
        (
            helper.make_node(
                "ConstantOfShape", ["x"], ["y"], value=helper.make_tensor("v", 1, [2], [1, 2])
            ),
            "has shape [2]",
        ),
        (
            helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft", activation="Rm"),
            "is 'Rm'; FusedConv knows 'Clip'",
        ),
        (
            helper.make_node("MatMulNBits", ["x"], ["y"], domain="com.microsoft", K=4, N=4),
            "lacks its attribute 'block_size'",
        ),
    ],
)  # fmt: skip
def test_what_no_operator_takes_is_refused(node: NodeProto, said: str) -> None:
    assert said in problem(node)


def attribute(**fields: object) -> NodeProto:
    node = helper.make_node("Softmax", ["x"], ["y"], name="n")
    node.attribute.add(name="axis", **fields)  # type: ignore[arg-type]
    return node


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (attribute(i=1), "has no type"),
        (attribute(type=A.INT, s=b"1"), "says that it is INT and holds something else"),
        (attribute(type=A.INT, i=1, ints=[1]), "says that it is INT and holds something else"),
        (attribute(type=A.TENSOR), "says that it is TENSOR and holds something else"),
        (attribute(type=A.INT, ref_attr_name="axis"), "outside a local function"),
        (helper.make_node("Custom", [], ["y"], name="n", domain="own", key=b"\xff\0"), ""),
        (helper.make_node("Custom", [], ["y"], name="n", domain="own", axis="first"), ""),
    ],
)  # fmt: skip
def test_attributes_hold_one_value_of_their_type(node: NodeProto, said: str) -> None:
    found = problem(node)
    assert said in found and bool(said) is bool(found)


def test_an_attribute_is_given_once() -> None:
    node = attribute(type=A.INT, i=1)
    node.attribute.append(node.attribute[0])
    assert "node 'n' (Softmax): attribute 'axis' is given twice" in problem(node)


def test_subgraphs_are_checked() -> None:
    inner = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["z"], axis="text")], "inner", [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    assert "node 'z' (Softmax): attribute 'axis' is STRING" in problem(node)


@pytest.mark.parametrize("value", [-1, "text"])
def test_functions_are_checked_as_they_are_called(value: int | str) -> None:
    """What a call hands over is checked where it is used."""
    body = helper.make_node("Softmax", ["a"], ["b"])
    body.attribute.add(name="axis", type=A.INT, ref_attr_name="along")
    function = helper.make_function(
        "own", "Soft", ["a"], ["b"], [body], [helper.make_opsetid("", 17)], ["along"]
    )
    value_info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xy"]
    call = helper.make_node("Soft", ["x"], ["y"], domain="own", along=value)
    graph = helper.make_graph([call], "g", value_info[:1], value_info[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
    if value == -1:
        assert load(proto).proto.graph.node[0].op_type == "Softmax"
        return
    with pytest.raises(InvalidModel, match="attribute 'axis' is STRING where Softmax takes INT"):
        load(proto)


def test_a_model_is_checked_when_it_is_read() -> None:
    proto = small_model()
    proto.graph.node.append(helper.make_node("Flatten", ["x"], ["flat"], axis=np.float32(1)))
    with pytest.raises(InvalidModel, match="the model: node 'flat'"):
        load(proto)
    with pytest.raises(InvalidModel, match="axis"):
        load(proto.SerializeToString())
