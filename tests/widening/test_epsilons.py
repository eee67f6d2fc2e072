"""Epsilons that growing changes are told: in the history, by name, and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import onnx_net2net as n2n
from onnx_net2net.widening.epsilons import epsilon_lines, norm_epsilons
from tests.console import FIXTURES, finished

GPT2 = FIXTURES / "gpt2.dynamo-raw.onnx"
STREAM = "model.transformer.wte"
NORMS = [f"model.transformer.h.{i}.ln_{k}.weight" for i in (0, 1) for k in (1, 2)]


def widened() -> n2n.Model:
    return n2n.widen(n2n.load(GPT2), {STREAM: 28})


def test_padded_norms_tell_both_numbers() -> None:
    found = norm_epsilons(widened().history)
    assert set(found) == {*NORMS, "model.transformer.ln_f.weight"}
    for old, new in found.values():
        assert (old, new) == (pytest.approx(1e-5), pytest.approx(1e-5 * 20 / 28))
    assert norm_epsilons(n2n.widen(n2n.load(GPT2), {STREAM: 40}).history) == {}


def test_the_first_number_stays_and_the_last_one_counts() -> None:
    twice = n2n.widen(widened(), {STREAM: 35})
    old, new = norm_epsilons(twice.history)[NORMS[0]]
    assert (old, new) == (pytest.approx(1e-5), pytest.approx(1e-5 * 20 / 35))


def test_names_move_and_copies_have_what_their_block_has() -> None:
    deep = n2n.deepen(widened(), block="h.0", copies=2)
    found = norm_epsilons(deep.history)
    assert {name.split(".")[3] for name in found if ".h." in name} == {"0", "1", "2", "3"}
    assert len(found) == 9 and len(set(found.values())) == 1


def test_norms_in_a_row_tell_theirs() -> None:
    """A copy of a post-norm block leaves its own norm to another epsilon."""
    proto = onnx.load(FIXTURES / "bert.dynamo-raw.onnx")
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 1e-5
    model = n2n.load(proto)
    deep = n2n.deepen(model, block="layer.0")
    found = norm_epsilons(deep.history)
    attributes = {
        node.input[1]: helper.get_attribute_value(attribute)
        for node in deep.proto.graph.node
        for attribute in node.attribute
        if attribute.name == "epsilon"
    }
    assert found and found == {
        name: (pytest.approx(1e-5), pytest.approx(value))
        for name, value in attributes.items()
        if not np.isclose(value, 1e-5)
    }


def test_the_commands_say_so(tmp_path: Path) -> None:
    def told(*arguments: object) -> str:
        done = finished(*arguments, cwd=tmp_path)
        assert done.code == 0, done
        return done.out

    line = "epsilon 1e-05 -> 7.14286e-06 in model.transformer.h.0.ln_1, "
    out = told("widen", GPT2, "--node", STREAM, "--width", 28, "-o", "grown.onnx")
    assert line in out and "more norms" not in out
    out = told("export", "grown.onnx", "--to", "safetensors", "-o", "grown.safetensors")
    assert line in out and "set it in the author's class" in out
    out = told("deepen", "grown.onnx", "--block", "h.0", "-o", "deeper.onnx")
    assert "epsilon" not in out, "this step changed none"
    assert "and 1 more norms" in told("export", "deeper.onnx", "--to", "safetensors")


@pytest.mark.parametrize("told", [3, {"a": 1}, {"a": ["x", "y"]}, {"a": [1.0]}])
def test_damaged_histories_are_refused(told: Any) -> None:
    with pytest.raises(n2n.InvalidModel, match="which epsilons"):
        epsilon_lines([{"operation": "widen", "epsilons": told}])
