"""What a model's file says is shown on the terminal, and steers nothing there."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.text import Text

from onnx_net2net.cli.tables import empty_table
from onnx_net2net.cli.tables import text as shown_as
from onnx_net2net.cli.terminal import Terminal, own_styles, printable
from tests.console import environment, finished

STEERING = "\x1b[31m\x1b]0;title\x07\x9b2J\u202eevil\u200b\u2028\x7f\r\x08\ue000\U000e0001"
HARD = (STEERING, "[/bold]", "[red]a[/red]", "[link=http://x]", ":smile:", "a\nerror: b", "\\x1b")


def steers(text: str) -> list[str]:
    """The characters that a terminal would act upon."""
    kinds = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in kinds]


def test_everything_that_steers_is_escaped() -> None:
    everything = "".join(map(chr, range(0x110000)))
    assert not steers(printable(everything))
    assert printable("é日本\t\n[bold] 😀") == "é日本\t\n[bold] 😀"
    assert printable("a\nb", lines=False) == "a\\u000ab"
    assert printable("\ud800\U000e0001") == "\\ud800\\U000e0001"


def test_a_stream_writes_what_is_printable_and_our_own_styles() -> None:
    kept = io.StringIO()
    stream = Terminal(kept)
    assert stream.write("a\x1bb") == 3
    stream.writelines(["c\x07", own_styles("\x1b[1md\x1b[0m")])
    assert kept.getvalue() == "a\\u001bbc\\u0007\x1b[1md\x1b[0m"
    assert not hasattr(stream, "buffer")
    assert not stream.isatty()


@pytest.mark.parametrize("text", HARD)
def test_cells_are_shown_as_they_are(text: str) -> None:
    table = empty_table(("a", "left"), ("b", "fold"))
    table.add_row(text, Text("equivalent", style="green"))
    shown = shown_as(table)
    assert not steers(shown)
    assert len(shown.split("\n")) == 2
    assert printable(text, lines=False) in shown


def onnx_net2net(*arguments: object) -> tuple[int, str, str]:
    """Run the command line; exit code, stdout and stderr."""
    done = finished(*arguments)
    return done.code, done.out, done.err


def network() -> onnx.ModelProto:
    """Two layers and a ReLU."""
    rng = np.random.default_rng(0)
    shapes = {"w": (6, 4), "b": (6,), "v": (3, 6)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "v"], ["y"], name="second", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def hostile(text: str) -> onnx.ModelProto:
    """A small network that says ``text`` wherever a file says anything."""
    proto = network()
    graph = proto.graph
    renamed: dict[str, str] = {}

    def name(old: str) -> str:
        return renamed.setdefault(old, f"{text}{len(renamed)}") if old else old

    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name, value.doc_string = name(value.name), text
    for node in graph.node:
        node.name, node.doc_string = name(f"node {node.name}"), text
        node.input[:], node.output[:] = map(name, node.input), map(name, node.output)
        node.metadata_props.add(key=text, value=text)
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = text
    graph.name = graph.doc_string = proto.doc_string = proto.producer_name = proto.domain = text
    proto.producer_version = text
    proto.metadata_props.add(key=text, value=text)
    proto.metadata_props.add(key="onnx_net2net.history", value=json.dumps([step(text)]))
    return proto


def step(text: str) -> dict[str, object]:
    changes = [
        {"dimension": text, "old": 1, "new": 2},
        {"block": text, "copies": 2},
        {"init": text, "after": text},
    ]
    return {"operation": text, "parent": text, "version": text, "changes": changes}


@pytest.mark.parametrize("text", [STEERING, "[/bold]a:smile:"], ids=["controls", "markup"])
def test_no_command_lets_a_file_steer_the_terminal(text: str, tmp_path: Path) -> None:
    proto = hostile(text)
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx", "grown.onnx")]
    paths[0].write_bytes(proto.SerializeToString())
    proto.graph.initializer[0].raw_data = bytes(len(proto.graph.initializer[0].raw_data))
    paths[1].write_bytes(proto.SerializeToString())
    report = tmp_path / "report.xml"
    first, second, grown = paths
    commands = (
        ("inspect", first, "--all"), ("inspect", first, "--json"), ("inspect", first, "--blocks"),
        ("inspect", first, "--node", text), ("history", first), ("history", first, "--json"),
        ("diff", first, second), ("diff", first, second, "--json"),
        ("verify", first, second, "--junit", report), ("verify", first, second, "--json"),
        ("widen", first, "--factor", "2", "--all", "-o", grown, "--force"),
        ("widen", first, "--node", f"{text}9", "--width", "99", "-o", grown, "--force"),
        ("deepen", first, "--after", f"node {text}", "-o", grown, "--force"),
        ("grow", first, "--params", "2x", "-o", grown, "--force"),
    )  # fmt: skip
    for command in commands:
        code, out, err = onnx_net2net(*command)
        assert code in (0, 1, 2), f"{command[0]}: {err}"
        assert not steers(out + err), f"{command[0]}: {steers(out + err)}"
        if "--json" in command:
            json.loads(out)
    ElementTree.parse(report)


def test_a_name_forges_no_line(tmp_path: Path) -> None:
    """Neither in an error nor in a verdict does the end of a line within a name end the line."""
    forged = "a\nerror: b"
    proto = hostile(forged)
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    first.write_bytes(proto.SerializeToString())
    proto.graph.initializer[0].raw_data = bytes(len(proto.graph.initializer[0].raw_data))
    second.write_bytes(proto.SerializeToString())
    told = ""
    for command in (
        ("widen", first, "--node", f"{forged}0", "--width", "9"),
        ("widen", first, "--node", f"{forged}nope", "--width", "9"),
        ("grow", first, "--params", "2x", "--dry-run"),
        ("verify", first, second),
        ("diff", first, second),
    ):
        code, out, err = onnx_net2net(*command)
        assert code in (0, 1, 2)
        told += out + err
    assert "\\u000aerror: b" in told
    assert not [line for line in told.split("\n") if line.startswith("error: b")]


def test_on_a_terminal_only_our_own_styles(tmp_path: Path) -> None:
    """With colours, nothing of the file is one of them."""
    path = tmp_path / "a.onnx"
    path.write_bytes(hostile(STEERING).SerializeToString())
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "onnx_net2net", "history", str(path)]
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=environment()) as process:
        os.close(follower)
        shown = b""
        try:
            while block := os.read(leader, 4096):
                shown += block
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0
    os.close(leader)
    rest = shown.decode().replace("\r\n", "\n").replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "\x1b[1m" in shown.decode()
    assert not steers(rest)
