"""Nodes that no layer of Keras computes, as Python beside the file, which runs with Keras alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_net2net.errors import OutputError, Refused, UsageError
from onnx_net2net.model.model import Model
from tests.cli.test_terminal import onnx_net2net
from tests.keras_models import (
    FOLDER,
    differences,
    expected,
    feeds_of,
    keras,
    load,
    outputs,
    to_keras,
)

from onnx_net2net.frameworks.keras import written_layers  # isort: skip
from onnx_net2net.frameworks.keras.saving import (  # isort: skip
    layers_name,
    needs_this_program,
    save_keras,
)

FIXTURES = ("bert.ts17", "gpt-neox.ts17", "gqa.handmade", "if.dynamo", "loop.ts17", "swin.ts11")
ROWS = ", ".join(f"{n / 7}" for n in range(70))
HEAD = '<ir_version: 8, opset_import: ["": 17]> net '
# Networks whose sizes, or whose course, only a run tells.
TEXTS = {
    "turned": """(float[a, b, 4] x) => (float[p, q, 4] y) {
        shape = Shape(x)  places = Constant <value = int64[3] {1, 0, 2}> ()
        sizes = Gather(shape, places)  y = Reshape(x, sizes) }""",
    "table": """(float[a, b, 4] x) => (float[b] y) {
        shape = Shape(x)  one = Constant <value = int64[1] {1}> ()
        zero = Constant <value = int64[1] {0}> ()
        rows = Constant <value = float[70] {ROWS}> ()
        end = Gather(shape, one)  y = Slice(rows, zero, end, zero) }""",
    "scan": """(float[n, 3] x, float[3] s) => (float[3] last, float[n, 3] rows) {
        last, rows = Scan <num_scan_inputs = 1, body = step (float[3] a, float[3] e)
        => (float[3] c, float[3] r) { c = Add(a, e)  r = Mul(c, c) }> (s, x) }""",
    "loop": """(float[n, 3] x, int64 count, bool first) => (float[n, 3] y) {
        y = Loop <body = step (int64 i, bool go, float[n, 3] a)
        => (bool on, float[n, 3] b) { on = Identity(go)  t = Sin(a)  b = Add(t, x) }>
        (count, first, x) }""",
    "branch": """(float[n, 3] x, bool flag) => (float[n, 3] y) {
        ratio = Constant <value = float {0.5}> ()
        y = If <then_branch = yes () => (float[n, 3] a) { t = Sin(x)  a = Dropout(t, ratio) },
        else_branch = no () => (float[n, 3] b) { b = Cos(x) }> (flag) }""",
}


def written_out(name: str) -> Model:
    """A network of the table."""
    return load(onnx.parser.parse_model(HEAD + TEXTS[name].replace("ROWS", ROWS)))


def feeds_for(name: str) -> dict[str, np.ndarray]:
    """Inputs of a network of the table."""
    random = np.random.default_rng(1)
    more: dict[str, dict[str, Any]] = {
        "branch": {"flag": np.array(True)},
        "loop": {"count": np.array(3), "first": np.array(True)},
        "scan": {"s": random.normal(size=3).astype(np.float32)},
    }
    shape = (5, 3) if name in more else (2, 5, 4)
    return {"x": random.normal(size=shape).astype(np.float32), **more.get(name, {})}


def models() -> dict[str, tuple[Model, dict[str, np.ndarray]]]:
    fixtures = {name: load(FOLDER / f"{name}.onnx") for name in FIXTURES}
    return {name: (model, feeds_of(model)) for name, model in fixtures.items()} | {
        name: (written_out(name), feeds_for(name)) for name in TEXTS
    }


def test_files_load_where_this_program_is_not(tmp_path: Path) -> None:
    """All in one process, which finds keras and the files alone, and compares with onnxruntime."""
    for name, (model, feeds) in models().items():
        network = to_keras(model)
        assert not needs_this_program(network), name
        target = tmp_path / f"{name}.keras"
        assert save_keras(network, target) == [target, tmp_path / layers_name(target)], name
        wanted = expected(model, feeds)
        assert differences(wanted, outputs(network, feeds)) == [], name
        np.savez(tmp_path / f"{name}.in.npz", **{f"i{i}": v for i, v in enumerate(feeds.values())})
        np.savez(tmp_path / f"{name}.out.npz", *outputs(network, feeds))
    code = f"""
import importlib, sys
sys.modules["onnx_net2net"] = None
import keras, numpy as np
for name in {list(models())!r}:
    importlib.import_module(name.replace(".", "_").replace("-", "_") + "_layers")
    network = keras.saving.load_model(f"{{name}}.keras")
    given = list(np.load(f"{{name}}.in.npz").values())
    found = network(given if len(given) > 1 else given[0])
    found = list(found.values()) if isinstance(found, dict) else found
    found = found if isinstance(found, list) else [found]
    for a, b in zip(np.load(f"{{name}}.out.npz").values(), found, strict=True):
        assert np.array_equal(a, keras.ops.convert_to_numpy(b)), name
"""
    place = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", TEXTS)
def test_other_sizes_and_courses_are_those_of_the_file(name: str) -> None:
    """What was noted for one walk holds for every input."""
    model, network = written_out(name), to_keras(written_out(name))
    feeds = feeds_for(name)
    for rows in (1, 4):
        feeds["x"] = np.random.default_rng(rows).normal(size=(rows, *feeds["x"].shape[1:]))
        feeds["x"] = feeds["x"].astype(np.float32)
        for key, value in (("count", rows), ("flag", rows > 1), ("first", rows > 1)):
            feeds |= {key: np.array(value)} if key in feeds else {}
        assert differences(expected(model, feeds), outputs(network, feeds)) == []


def test_a_layer_follows_training() -> None:
    network = to_keras(written_out("branch"))
    feeds = feeds_for("branch") | {"x": np.ones((40, 3), np.float32)}
    dropped = outputs(network, feeds, training=True)[0]
    assert 0.3 < (dropped == 0).mean() < 0.7
    assert not (outputs(network, feeds)[0] == 0).any()
    assert not np.array_equal(dropped, outputs(network, feeds, training=True)[0])


def test_a_text_says_what_the_nodes_do() -> None:
    network = to_keras(written_out("turned"))
    text = written_layers.source_of(map(type, network.layers), 'x"""\nprint(1)\n"""')
    body = text.partition("inputs\n")[2]
    assert body == (
        "        size = ops.shape(x)\n        return [ops.reshape(x, [size[1], size[0], 4])]\n"
    )
    assert "print(1)" not in text.split('"""')[2] and "onnx_net2net." not in text
    again = to_keras(written_out("turned"))
    names = [keras.saving.get_registered_name(type(n.layers[1])) for n in (network, again)]
    assert (
        names[0]
        == names[1]
        != keras.saving.get_registered_name(type(to_keras(written_out("table")).layers[1]))
    )


PLANTED = (
    "open('ran', 'w')", "__import__('os')", "x.__class__", "ops.__dict__", "ops.numpy.x",
    "keras.utils.get_file(x)", "ops.add(x, 'a\\nb')", "eval(x)", "self.load(x)", "[y for y in x]",
    "lambda: x", "(y := x)", "f'{x}'", "np.load(x)", "getattr(ops, 'add')", "ops.cast(x, b'')",
)  # fmt: skip


@pytest.mark.parametrize("code", PLANTED)
def test_what_no_note_says_is_refused(code: str) -> None:
    lines = ["(x,) = inputs", "return [ops.add(x, 1)]"]
    written_layers._check(written_layers._class("Sound", lines, lines, draws=False))
    lines.insert(1, f"x = {code}")
    with pytest.raises(Refused, match="no translation means"):
        written_layers._check(written_layers._class("Planted", lines, lines, draws=False))


def test_what_cannot_be_written_stays_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted statement is neither run nor written: the layer of nodes takes its place."""
    monkeypatch.setattr(
        written_layers,
        "_class",
        lambda *_, **__: "class A(B):\n    def call(self):\n        print()",
    )
    network, feeds = to_keras(written_out("turned")), feeds_for("turned")
    assert needs_this_program(network)
    assert differences(expected(written_out("turned"), feeds), outputs(network, feeds)) == []


def test_files_are_kept_unless_forced(tmp_path: Path) -> None:
    network, target = to_keras(written_out("turned")), tmp_path / "2 turned.keras"
    beside = tmp_path / "x2_turned_layers.py"
    beside.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        save_keras(network, target, force=False)
    assert [p.name for p in tmp_path.iterdir()] == [beside.name] and beside.read_text() == "mine"
    assert save_keras(network, target) == [target, beside]
    with pytest.raises(UsageError, match="Keras writes"):
        save_keras(network, tmp_path / "turned.h5")


def test_the_command_says_what_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx.parser.parse_model(HEAD + TEXTS["turned"]), "turned.onnx")
    code, out, err = onnx_net2net("export", "turned.onnx", "--to", "keras")
    assert code == 0, err
    assert "wrote turned.keras and turned_layers.py" in out
    assert "import turned_layers before Keras loads turned.keras" in out
    code, out, _ = onnx_net2net("export", "turned.onnx", "--to", "keras", "--json", "--force")
    assert code == 0 and '"layers": "turned_layers.py"' in out


def test_absorbs_a_saved_model_without_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing beside a .keras file is run: its layers are made anew of the ONNX file."""
    from onnx_net2net.frameworks.absorb import absorb
    from onnx_net2net.frameworks.export import load_keras

    model = load(FOLDER / "bert.ts17.onnx")
    network = to_keras(model)
    target, layers = save_keras(network, tmp_path / "bert.keras")
    layers.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for name in list(keras.saving.get_custom_objects()):
        monkeypatch.delitem(keras.saving.get_custom_objects(), name)
    trained = absorb(model, load_keras(target, model))
    assert trained.history[-1]["weights"] > 10 and not (tmp_path / "ran").exists()
