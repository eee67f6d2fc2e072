"""Operators as functions of simpler ones, written in ONNX's own text.

    BiasGelu (x, bias) => (y) {
        sum = Add (x, bias)
        y = Gelu (sum)
    }

One text serves all that do not know the operator: translators, the count of operations, the
roles of weights. A comment behind a line says when the line counts:

    # bias              the operand is given (an attribute: it is neither zero nor empty)
    # mask:2            the operand is given and has two axes
    # activation=Relu   the attribute has this value
    # padding           a line above counts, and computes this
    # not bias, causal  both of two conditions

An element of a list attribute is named by its position: ``@activation_params_0``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from onnx import AttributeProto, FunctionProto, NodeProto, helper, parser

from onnx_net2net.operators.function_texts import OPSET, TEXTS
from onnx_net2net.operators.language import Unsupported

__all__ = ["Text", "body", "functions", "parsed"]

HEADER = '<domain: "{domain}", opset_import: ["" : {opset}]>\n'
CONDITION = re.compile(r"(?P<negated>not )?(?P<name>\w+)(?::(?P<rank>\d)|=(?P<value>\S*))?")
NODE = re.compile(r"\s+\w+(?:, \w+)* = [A-Z]")
Rank = Callable[[int], int | None]


@dataclass(frozen=True)
class Line:
    """A node of a text, and when it counts."""

    node: NodeProto
    conditions: tuple[re.Match[str], ...]


@dataclass(frozen=True)
class Text:
    """A function whose lines depend on what a call gives."""

    function: FunctionProto
    lines: tuple[Line, ...]


@cache
def functions() -> Mapping[tuple[str, str], Text]:
    """Return all texts by (domain, operator)."""
    texts = [parsed(text, domain) for domain, every in TEXTS.items() for text in every]
    return {(text.function.domain, text.function.name): text for text in texts}


def parsed(text: str, domain: str = "com.microsoft") -> Text:
    """Return a text with its conditions. Raise ValueError where it is none."""
    function = parser.parse_function(HEADER.format(domain=domain, opset=OPSET) + text)
    comments: list[str] = []
    for code, _, comment in (line.partition("#") for line in text.splitlines()):
        if NODE.match(code):
            comments.append(comment)
        elif comment:  # of a node that began on a line above
            comments[-1] += f", {comment}"
    lines = []
    for node, comment in zip(function.node, comments, strict=True):
        parts = [CONDITION.fullmatch(part.strip()) for part in comment.split(",") if part.strip()]
        if None in parts:
            raise ValueError(f"{function.name}: {comment!r} is no condition")
        lines.append(Line(node, tuple(part for part in parts if part)))
    return Text(function, tuple(lines))


def body(
    node: NodeProto, rank: Rank, taken: Callable[[str], bool], needed: Callable[[str], bool]
) -> list[NodeProto]:
    """Return the nodes that compute what ``node`` does.

    ``rank`` gives the number of axes of an operand, ``taken`` tells names that the graph has,
    ``needed`` the outputs that are read. Raise Unsupported where no line of the operator's text
    looks at what the node states or is given, or where no line computes what is needed of it.
    """
    domain = "" if node.domain == "ai.onnx" else node.domain
    text = functions().get((domain, node.op_type))
    if text is None:
        raise Unsupported(f"operator {node.op_type} has no function text")
    return _TextCall(node, text.function, rank).nodes(text.lines, taken, needed)


class _TextCall:
    """One node and the text that it is a call of."""

    def __init__(self, node: NodeProto, function: FunctionProto, rank: Rank) -> None:
        self.node = node
        self.function = function
        self.rank = rank
        given = [*node.input, *[""] * (len(function.input) - len(node.input))]
        self.operands = dict(zip(function.input, given, strict=False))
        self.outputs = dict(zip(function.output, node.output, strict=False))
        self.stated = {attribute.name: attribute for attribute in node.attribute}
        self.defaults = {attribute.name: attribute for attribute in function.attribute_proto}
        self.looked_at: set[str] = set()
        self.computed: set[str] = set()  # by the lines that count

    def nodes(
        self,
        lines: Sequence[Line],
        taken: Callable[[str], bool],
        needed: Callable[[str], bool],
    ) -> list[NodeProto]:
        """Return the lines that count, under the names of the graph around the node."""
        chosen = []
        for line in lines:
            if all(map(self._holds, line.conditions)):
                chosen.append(line.node)
                self.computed.update(line.node.output)
        self._check_all_read(chosen)
        kept, wanted = [], {n for n, outer in self.outputs.items() if outer and needed(outer)}
        for line in reversed(chosen):
            if not wanted.isdisjoint(line.output):
                kept.append(line)
                wanted = (wanted - set(line.output)) | {n for n in line.input if n}
        for name in sorted(wanted - self.operands.keys()):
            missing = sorted({
                condition[0]
                for line in lines if name in line.node.output
                for condition in line.conditions if not self._holds(condition)
            })  # fmt: skip
            needs = f" unless {' or '.join(missing)}" if missing else ""
            raise Unsupported(f"its function text does not say what {name!r} is{needs}")
        return self._renamed(kept[::-1], taken)

    def _holds(self, condition: re.Match[str]) -> bool:
        name, value = condition["name"], condition["value"]
        self.looked_at.add(name)
        if name in self.computed:
            result = True
        elif name in self.operands:
            result = bool(self.operands[name])
            if result and condition["rank"]:
                rank = self.rank(list(self.operands).index(name))
                if rank is None:
                    raise Unsupported(f"the number of axes of its operand {name!r} is not known")
                result = rank == int(condition["rank"])
        elif value is None:
            result = bool(self.attribute(name))
        else:
            stated = self.attribute(name)
            if isinstance(stated, str) or not value:
                result = (stated or "") == value
            else:
                result = stated is not None and stated == float(value)
        return result != bool(condition["negated"])

    def attribute(self, name: str) -> Any:
        """Return what the node states, or the text's default; None where there is neither."""
        source = self.stated.get(name, self.defaults.get(name))
        if source is not None:
            value = helper.get_attribute_value(source)
            return value.decode() if isinstance(value, bytes) else value
        whole, _, position = name.rpartition("_")
        items = self.attribute(whole) if whole and position.isdigit() else None
        self.looked_at.add(whole)
        return next(iter(items[int(position) :]), None) if isinstance(items, list) else None

    def _check_all_read(self, chosen: Sequence[NodeProto]) -> None:
        """Raise where a line that counts looks at none of what the node has."""
        for line in chosen:
            self.looked_at.update(line.input)
            for attribute in line.attribute:
                if attribute.ref_attr_name:
                    self.looked_at.add(attribute.ref_attr_name)
                    self.attribute(attribute.ref_attr_name)
        ignored = [
            name
            for name, attribute in self.stated.items()
            if name not in self.looked_at and attribute != self.defaults.get(name)
        ]
        if ignored:
            raise Unsupported(f"no function text looks at its attribute {', '.join(ignored)}")
        names = dict(enumerate(self.function.input))
        for index, outer in enumerate(self.node.input):
            if outer and names.get(index) not in self.looked_at:
                raise Unsupported(f"no function text looks at its operand {index}")

    def _renamed(self, lines: Sequence[NodeProto], taken: Callable[[str], bool]) -> list[NodeProto]:
        prefix = next(name for name in self.node.output if name)
        while any(taken(f"{prefix}/{name}") for line in lines for name in line.output):
            prefix += "_"
        names = {"": "", **self.operands}
        outputs = {name: outer for name, outer in self.outputs.items() if outer}
        nodes = []
        for line in lines:
            inputs = [names[name] for name in line.input]
            inner = not set(line.output) & outputs.keys()
            if line.op_type == "Identity" and inner:  # another name for the same tensor
                names[line.output[0]] = inputs[0]
                continue
            names.update({name: outputs.get(name) or f"{prefix}/{name}" for name in line.output})
            while inputs and not inputs[-1]:
                inputs.pop()
            new = helper.make_node(
                line.op_type, inputs, [names[name] for name in line.output],
                name=self.node.name and f"{self.node.name}/{line.output[0]}", domain=line.domain,
            )  # fmt: skip
            new.attribute.extend(filter(None, map(self._resolved, line.attribute)))
            nodes.append(new)
        return nodes

    def _resolved(self, attribute: AttributeProto) -> AttributeProto | None:
        """Return an attribute of a line; None where it is one of the node that states none."""
        if not attribute.ref_attr_name:
            return attribute
        value = self.attribute(attribute.ref_attr_name)
        if value is None:
            return None
        wants_list = attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS)
        if wants_list and isinstance(value, int | float):
            value = [value]
        return helper.make_attribute(attribute.name, value)
