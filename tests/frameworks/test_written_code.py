"""Code that a model's file could steer: the walker sees it, and names never become code."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch")

import torch

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.codegen import identifier
from onnx_net2net.frameworks.torch import to_torch
from onnx_net2net.frameworks.torch.code_check import check, known, vocabulary
from onnx_net2net.frameworks.torch.library import reserved
from onnx_net2net.frameworks.torch.translation import parameters
from onnx_net2net.frameworks.torch.types import literal
from onnx_net2net.model.model import load
from tests.torch_models import difference, expected

TEXT = '''"""A network."""

import torch
import torch.nn.functional as F
from torch import nn


def ours(x):
    return x + 1


class Model(nn.Module):
    """The network, layer by layer as the ONNX file has it."""

    def __init__(self) -> None:
        super().__init__()
        self.zconv = nn.Conv2d(3, 4, 3)
        self.register_buffer("zscale", torch.tensor([0.5]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.zconv(x)) * getattr(self, "zscale")
        return x
'''
OWN = ["def ours(x):\n    return x + 1\n"]
LAST = "        return x\n"


def problem(text: str) -> str:
    try:
        check(text, OWN, {"zconv", "zscale"}, {"ij,jk->ik"})
    except Refused as error:
        return str(error)
    return ""


def test_what_is_ours_passes() -> None:
    assert problem(TEXT) == ""
    assert problem(TEXT.replace("F.relu(", 'torch.einsum("ij,jk->ik", ')) == ""


PLANTED = (
    '__import__("os").system("true")',
    "eval('1')",
    'exec("1")',
    'open("ran", "w")',
    'x = x if open("ran", "w") else x',
    "x.__class__",
    "self.__dict__",
    "self.zconv.__init__(x)",
    'getattr(self, "__class__")',
    "getattr(self, x)",
    'getattr(torch, "load")(x)',
    'torch.load("zconv")',
    "torch.hub",
    "torch.zscale(x)",
    "torch.zconv.zscale(x)",
    "x.zconv",
    "torch = x",
    "getattr = x",
    "__name__ = x",
    "import os",
    "from os import system",
    "global x",
    "del x",
    "assert x",
    "raise x",
    "x: torch.Tensor = x",
    "(y := x)",
    'f"{x}"',
    "(lambda: x)()",
    "[x][0].__class__()",
    "await x",
    "while x: x",
    "with x: x",
    "class A: x",
    "def f(a=x): return a",
    "@self.zconv\n        def f(a): return a",
    'F.pad(x, (1, 1), mode="none\\" if open(1) else \\"")',
    'x.format("a text that nobody wrote")',
    "b'bytes'",
    "globals()",
    "print(x)",
    "sys.modules",
    "Model()",
)


@pytest.mark.parametrize("code", PLANTED)
def test_planted_code_is_refused(code: str) -> None:
    """In ``forward`` and in ``__init__`` alike, whatever stands around it."""
    planted = TEXT.replace(LAST, f"        {code}\n{LAST}")
    if code.startswith("await"):
        planted = planted.replace("def forward", "async def forward")
    assert "the written code would say" in problem(planted)
    if "\n" not in code and not code.startswith("await"):
        start = "        super().__init__()\n"
        assert "would say" in problem(TEXT.replace(start, f"{start}        {code}\n"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def ours(x):\n    return x + 1", "def ours(x):\n    return x + 2"),
        ("import torch\n", "import torch\nimport os\n"),
        ("import torch\n", "import torch\nopen('ran', 'w')\n"),
        ("from torch import nn", "from torch import nn, hub"),
        ("class Model(nn.Module)", "class Model(nn.Module, x)"),
        ("class Model(nn.Module)", "class Model(nn.Module, metaclass=x)"),
        ("class Model(nn.Module)", "@ours\nclass Model(nn.Module)"),
        ("    def forward", "    y = ours(1)\n\n    def forward"),
        ("    def forward", "    @ours\n    def forward"),
        ("    def forward(", "    def other(self) -> None:\n        x\n\n    def forward("),
        ("x: torch.Tensor)", "x: ours(1))"),
        ("-> torch.Tensor:", "-> ours(1):"),
        ("x: torch.Tensor)", "x: torch.Tensor = ours(1))"),
    ],
)  # fmt: skip
def test_the_rest_of_the_file_is_known(old: str, new: str) -> None:
    assert old in TEXT
    assert "the written code would say" in problem(TEXT.replace(old, new))


def test_the_vocabulary_is_mathematics() -> None:
    words, patterns = vocabulary()
    assert {"einsum", "relu", "shape", "LayerNorm"} <= words
    assert known("conv2d") and known("ConvTranspose3d") and known("isneginf")
    assert not words & {"exec", "eval", "load", "save", "open", "system", "hub", "__class__"}
    assert not any(made.fullmatch(w) for made in patterns for w in ("load", "eval", "exec", "hub"))


def test_texts_are_literals() -> None:
    for text in ('a"b', "a'b", "a\\b", "a\nb", "\ue0001", "{0}", "\x00", "é"):
        code = literal(text)
        assert eval(code) == text
        assert "\ue000" not in code and "\n" not in code


def test_identifiers_are_what_python_takes_them_for() -> None:
    assert identifier("\ufb01") == identifier("fi") == "fi"
    assert identifier("batch-size") == "batch_size" and identifier("0:x") == "x0_x"
    names = ["getattr", "fi", "\ufb01", "self", "class", "match", "a:0", "a_0", "", "__class__"]
    names += ["torch", "F", "nn", "gather_nd", "branch", "list", "input", "é", "π", "load", "None"]
    found = parameters(names)
    assert len(set(found)) == len(found)
    assert all(n.isidentifier() and n.isascii() and not n.startswith("__") for n in found)
    assert not set(found) & reserved()
    assert "input" in found


HARD = (
    "net_v1.weight", "a._v0", "a.x", "a._v1.b", "_v0", "a\ue0001", "forward.weight", "training",
    "source", "load", "__class__.__init__", "self.__dict__", "{0}", "{t0}", "{x}", "a'b", 'a"b',
    "a\\b", "a\nb", "a/b:0", "torch", "nn.F", "register_buffer", "constants", "é.weight",
    "\ufb01.w", "fi.w", "class.def", "T_destination", "0.1.2", "1", "state_dict", "a..b", ".",
    "_parameters",
)  # fmt: skip


def network(weights: list[str], inputs: tuple[str, ...] = ("x",)) -> onnx.ModelProto:
    """The sum of each input times each weight."""
    rng = np.random.default_rng(0)
    nodes, last = [], ""
    for index, name in enumerate(weights):
        made = f"product{index}"
        nodes.append(helper.make_node("MatMul", [inputs[index % len(inputs)], name], [made]))
        if last:
            nodes.append(helper.make_node("Add", [last, made], [f"sum{index}"]))
            made = f"sum{index}"
        last = made
    arrays = [rng.standard_normal((4, 4)).astype(np.float32) for _ in weights]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in inputs],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(a, n) for n, a in zip(weights, arrays, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def computes(proto: onnx.ModelProto, *names: str) -> None:
    rng = np.random.default_rng(1)
    feeds = {name: rng.standard_normal((3, 4)).astype(np.float32) for name in names}
    module = to_torch(load(proto))
    with torch.no_grad():
        got = module(*map(torch.from_numpy, feeds.values()))
    assert difference(expected(proto, feeds)[0], got.numpy()) < 2e-5


@pytest.mark.parametrize("name", HARD)
def test_a_weight_is_called_anything(name: str) -> None:
    computes(network([name, "other.weight"]), "x")


def test_weights_are_called_anything_together() -> None:
    """No two are confused; the network reads each."""
    computes(network(list(HARD)), "x")


@pytest.mark.parametrize("name", [*HARD, "getattr", "list", "_v1", "input", "len", "self", "F"])
def test_an_input_is_called_anything(name: str) -> None:
    computes(network(["w", "a.class.weight"], (name, "x_other")), name, "x_other")


def test_inputs_that_python_takes_for_one() -> None:
    computes(network(["w", "v"], ("\ufb01", "fi")), "\ufb01", "fi")
