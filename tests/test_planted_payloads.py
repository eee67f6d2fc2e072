"""Code planted wherever a model's file says anything: it never runs, in no command or framework.

A payload makes a file called ``ran`` in the working folder. Each line of defence is tried with the
others taken away: attributes are checked when a file is read, onnxruntime is asked, texts become
literals, and what is written is walked before it runs.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, defs

from onnx_net2net.errors import InvalidModel, Net2NetError, OutputError
from onnx_net2net.model import model as model_module
from onnx_net2net.model import schemas
from onnx_net2net.model.model import load
from tests.cli.test_terminal import hostile, onnx_net2net
from tests.operators.test_rules import BY_ID
from tests.samples import Sample
from tests.samples.network import network

A = AttributeProto
CODE = 'open("ran", "w")'
# As a number, as what stands in quotes, as a line of its own, and as what fills a template.
PAYLOADS = (
    f"0 if {CODE} else 0",
    f'none" if {CODE} else "',
    f"none' if {CODE} else '",
    f'"""\n{CODE}\n"""',
    f"\n{CODE}\n#",
    f"{{0}}{{t0}}{{x}}{{{CODE}}}\\",
    f"__import__('builtins').{CODE}",
)

FIRST: dict[tuple[str, str], Sample] = {}  # a sample of each operator
for sample in BY_ID.values():
    FIRST.setdefault(sample.operator, sample)


def attributes_of(operator: tuple[str, str], proto: onnx.ModelProto) -> list[str]:
    """What the operator of a sample may state, by its schema or by what it states."""
    domain, op = operator
    version = next((o.version for o in proto.opset_import if o.domain == domain), 1)
    known = schemas.schema(op, domain, version)
    if known is not None:
        return sorted(known.attributes)
    stated = {a.name for n in proto.graph.node if n.op_type == op for a in n.attribute}
    return sorted(stated | set(defs.get_schema("Conv").attributes) if "Conv" in op else stated)


def planted(operator: tuple[str, str], payload: str) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The sample of an operator with the payload in each of its attributes, as text and texts."""
    sample = FIRST[operator]
    for name in attributes_of(operator, network(sample)):
        for kind in (A.STRING, A.STRINGS):
            proto = network(sample)
            node = next(n for n in proto.graph.node if n.op_type == operator[1])
            kept = [a for a in node.attribute if a.name != name]
            del node.attribute[:]
            node.attribute.extend(kept)
            made = node.attribute.add(name=name, type=kind)
            if kind == A.STRING:
                made.s = payload.encode()
            else:
                made.strings.extend([payload.encode()] * 4)
            yield name, proto


@pytest.fixture(autouse=True)
def _nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path("ran").exists(), "a payload ran"


def test_every_attribute_is_checked_when_the_file_is_read() -> None:
    """Before any consumer sees it; text that is data is the only that passes."""
    passed, refused = set(), 0
    for operator in FIRST:
        for name, proto in planted(operator, PAYLOADS[1]):
            try:
                load(proto)
            except InvalidModel as error:
                assert name in str(error) and operator[1] in str(error)
                refused += 1
            else:
                passed.add(name)
    assert refused > 500
    assert passed <= schemas.DATA - {"equation"}


@pytest.mark.parametrize("payload", PAYLOADS[:2])
def test_written_code_says_no_payload(payload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second line: attributes unchecked and onnxruntime unasked, yet nothing is code."""
    pytest.importorskip("torch")
    from onnx_net2net.frameworks.torch import importer as torch_import

    monkeypatch.setattr(model_module, "check_attributes", lambda proto, opsets: None)
    monkeypatch.setattr(torch_import, "require_accepted", lambda model: None)
    written = 0
    for operator in FIRST:
        for _, proto in planted(operator, payload):
            try:
                module = torch_import.to_torch(load(proto))
            except Exception:  # attributes were to be checked first
                continue
            written += 1
            assert "open(" not in module.source
    assert written > 20


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_name_runs_in_pytorch(payload: str) -> None:
    """Names of all kinds, doc strings, metadata, dimensions; written, imported and run."""
    torch = pytest.importorskip("torch")
    from onnx_net2net.frameworks.torch import to_torch, write_package

    source = load(hostile(payload))
    x = torch.ones(2, 4)
    wanted = to_torch(source)(x)
    folder = write_package(source, "package")
    spec = importlib.util.spec_from_file_location("planted_package", folder / "model.py")
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    assert torch.equal(package.load()(x), wanted)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_name_runs_in_keras(payload: str) -> None:
    from tests.keras_models import to_keras

    found = to_keras(load(hostile(payload)))
    assert found(np.ones((2, 4), np.float32)).shape == (2, 3)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_name_runs_in_a_written_layer(payload: str) -> None:
    """Nodes whose sizes only a run tells become a text, which is imported and run."""
    from onnx_net2net.frameworks.keras import save_keras
    from tests.keras_models import keras, to_keras

    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]> g
        (float[a, b, 4] x) => (float[p, q, 4] y) { s = Shape(x)
        i = Constant <value = int64[3] {1, 0, 2}> ()  t = Gather(s, i)  y = Reshape(x, t) }""")
    for node in proto.graph.node:
        node.name, node.doc_string = f"{payload}{node.op_type}", payload
        for names in (node.input, node.output):
            names[:] = [f"{payload}{name}" for name in names]
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = f"{payload}{value.name}"
    _, layers = save_keras(to_keras(load(proto)), "planted.keras")
    spec = importlib.util.spec_from_file_location("planted_layers", layers)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    network = keras.saving.load_model("planted.keras")
    assert network(np.ones((2, 3, 4), np.float32)).shape == (3, 2, 4)


def test_no_file_name_runs() -> None:
    """The file's own name stands in the docstring of what is written."""
    pytest.importorskip("torch")
    from onnx_net2net.frameworks.torch import to_torch

    for stem in (f'"""\n{CODE}\n"""'.replace("/", ""), "a\\", "\u202e", "x" * 200, "{0}%IMPORTS%"):
        path = Path(f"{stem}.onnx")
        path.write_bytes(hostile("name").SerializeToString())
        text = to_torch(load(path)).source
        assert CODE not in text.split('"""', 2)[2] and len(text.splitlines()[0]) < 200


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_no_command_runs_what_a_file_says(framework: str) -> None:
    """Exports, with and without asking onnxruntime what the network computes."""
    pytest.importorskip("torch" if framework == "torch" else "tensorflow")
    Path("a.onnx").write_bytes(hostile(PAYLOADS[1]).SerializeToString())
    target = {"torch": "package", "keras": "a.keras"}[framework]
    for more in ((), ("--no-verify", "--json", "--force")):
        code, out, err = onnx_net2net("export", "a.onnx", "--to", framework, "-o", target, *more)
        assert code == 0, err or out
    bad = hostile("name")
    node = bad.graph.node[0]
    node.attribute.add(name="alpha", type=A.STRING, s=PAYLOADS[0].encode())
    Path("b.onnx").write_bytes(bad.SerializeToString())
    for command in (
        ("export", "b.onnx", "--to", framework, "-o", "b", "--no-verify"), ("inspect", "b.onnx"),
        ("widen", "b.onnx", "--factor", "2", "--all", "-o", "c.onnx", "--no-verify"),
        ("verify", "a.onnx", "b.onnx"), ("diff", "a.onnx", "b.onnx", "--json"),
    ):  # fmt: skip
        code, out, err = onnx_net2net(*command)
        assert code == 2 and "alpha" in out + err, f"{command[0]}: {out}{err}"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_histories_and_ties_are_data(payload: str) -> None:
    proto = hostile("name")
    steps = [{"operation": payload, "parent": payload, "version": payload, "changes": [payload]}]
    for key, value in (("onnx_net2net.history", steps), ("onnx_net2net.ties", {payload: payload})):
        proto.metadata_props.add(key=key, value=json.dumps(value))
    try:
        source = load(proto)
        assert source.history
    except Net2NetError as error:
        assert error.problem


def test_a_saved_keras_model_is_checked_like_a_file() -> None:
    """Its graph is a stranger's, too: attributes, references, what unpacks to too much."""
    pytest.importorskip("tensorflow")
    from onnx_net2net.frameworks.export import load_keras
    from onnx_net2net.frameworks.keras.layer import GraphLayer, decoded, encoded
    from tests.keras_models import keras

    x = keras.Input((4,))
    layer = GraphLayer(encoded(load(hostile("name")).editable()))
    keras.Model(x, layer([x])[0]).save("sound.keras")

    def planted_in(layer: dict[str, Any]) -> None:
        proto = decoded(layer["graph"])
        proto.graph.node[0].attribute.add(name="alpha", type=A.STRING, s=CODE.encode())
        layer["graph"] = encoded(proto)

    def unread_name(layer: dict[str, Any]) -> None:
        proto = decoded(layer["graph"])
        proto.graph.node[0].input[0] = "nowhere"
        layer["graph"] = encoded(proto)

    def bomb(layer: dict[str, Any]) -> None:
        layer["graph"] = base64.b64encode(zlib.compress(bytes(300 << 20))).decode()

    changes: tuple[tuple[Callable[[dict[str, Any]], object], str], ...] = (
        (planted_in, "alpha"),
        (unread_name, "nowhere"),
        (bomb, "too much"),
        (lambda layer: layer.update(graph="!"), "graph of a layer"),
        (lambda layer: layer.clear(), "un.keras"),
    )
    for change, said in changes:
        with zipfile.ZipFile("sound.keras") as sound, zipfile.ZipFile("un.keras", "w") as changed:
            for name in sound.namelist():
                contents = sound.read(name)
                if name == "config.json":
                    config = json.loads(contents)
                    (layer,) = (
                        e for e in config["config"]["layers"] if e["class_name"] == "GraphLayer"
                    )
                    change(layer["config"])
                    contents = json.dumps(config).encode()
                changed.writestr(name, contents)
        with pytest.raises(OutputError) as caught:
            load_keras(Path("un.keras"))
        assert said in caught.value.problem
