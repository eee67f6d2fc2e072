"""Random stacks of blocks: what calls itself exact must be, each alone and all at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper, numpy_helper
from onnx.helper import make_node

import onnx_net2net as n2n
from onnx_net2net.deepening import norms as norms_in_a_row
from onnx_net2net.deepening.block_copies import Cloning
from onnx_net2net.deepening.norms import Steady

WIDTH = 6
NORMS = ("fused", "centred", "uncentred")  # one node, or LayerNorm and RMSNorm in primitives
FORMS = ("pre-norm", "post-norm", "parallel", "gated", "activated", "scaled", "crossed", "bare")


class Stack:
    """A network x (3, 6) -> y under construction."""

    def __init__(
        self,
        seed: int,
        numbered: bool,
        shared: bool,
        epsilon: float = 1e-12,
        norms: str = "fused",
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self.epsilon, self.norms, self.dtype = epsilon, norms, np.dtype(dtype)
        self.random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, np.ndarray] = {
            "side.weight": self.normal(WIDTH, WIDTH).astype(dtype),
            "epsilon": np.array(epsilon, dtype),
            "two": np.array(2, dtype),
            "last": np.array([-1]),
        }
        self.numbered, self.shared = numbered, shared
        self.prefix = ""
        self.op("MatMul", "x", "side.weight", name="side")

    def normal(self, *shape: int) -> np.ndarray:
        return self.random.normal(size=shape).astype(np.float32)

    def weight(self, name: str, *shape: int, about: float = 0.0) -> str:
        prefix = "blocks.0." if self.shared else self.prefix
        full = f"{prefix}{name}" if self.numbered else f"{prefix}{name}".replace(".", "")
        if full not in self.weights:
            self.weights[full] = (0.5 * self.normal(*shape) + about).astype(self.dtype)
        return full

    def op(self, op: str, *inputs: str, name: str = "", **attributes: object) -> str:
        output = name or f"{self.prefix}t{len(self.nodes)}"
        self.nodes.append(make_node(op, [*inputs], [output], **attributes))
        return output

    def dense(self, x: str, name: str, wide: int = WIDTH, narrow: int = WIDTH) -> str:
        return self.op("MatMul", x, self.weight(f"{name}.weight", wide, narrow))

    def norm(self, x: str, name: str) -> str:
        scale = self.weight(f"{name}.weight", WIDTH, about=2.0)
        if self.norms == "fused":
            bias = self.weight(f"{name}.bias", WIDTH)
            return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.epsilon)
        centred = self.norms == "centred"
        x = self.op("Sub", x, self.op("ReduceMean", x, "last")) if centred else x
        variance = self.op("ReduceMean", self.op("Pow", x, "two"), "last")
        deviation = self.op("Sqrt", self.op("Add", variance, "epsilon"))
        scaled = self.op("Mul", scale, self.op("Div", x, deviation))
        return self.op("Add", scaled, self.weight(f"{name}.bias", WIDTH)) if centred else scaled

    def mlp(self, x: str) -> str:
        return self.dense(self.op("Relu", self.dense(x, "up", WIDTH, 8)), "down", 8, WIDTH)

    def block(self, form: str, x: str) -> str:
        if form == "pre-norm":
            return self.op("Add", x, self.mlp(self.norm(x, "norm")))
        if form == "post-norm":
            return self.norm(self.op("Add", x, self.mlp(x)), "norm")
        if form == "parallel":
            h = self.norm(x, "norm")
            return self.op("Add", self.op("Add", self.mlp(h), self.dense(h, "other")), x)
        if form == "gated":
            gate = self.op("Sigmoid", self.dense(x, "gate"))
            gated = self.op("Mul", gate, self.dense(x, "value"))
            return self.op("Add", x, self.dense(gated, "out"))
        if form == "activated":
            return self.op("Relu", self.op("Add", self.mlp(x), self.op("Dropout", x)))
        if form == "scaled":
            scaled = self.op("Mul", self.weight("scale", WIDTH, about=1.0), self.mlp(x))
            return self.op("Sub", x, scaled)
        if form == "crossed":
            weights = self.op("Softmax", self.op("MatMul", x, self.op("Transpose", "side")))
            return self.op("Add", x, self.dense(self.op("MatMul", weights, "side"), "out"))
        return self.op("Tanh", self.dense(x, "fc"))

    def model(self, forms: list[str]) -> n2n.Model:
        last = "x"
        for index, form in enumerate(forms):
            self.prefix = f"blocks.{index}."
            last = self.block(form, last)
        self.op("Identity", last, name="y")
        dtype = helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = helper.make_graph(
            self.nodes,
            "stack",
            [helper.make_tensor_value_info("x", dtype, (3, WIDTH))],
            [helper.make_tensor_value_info("y", dtype, None)],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        opset = helper.make_opsetid("", 18)
        return n2n.load(helper.make_model(graph, opset_imports=[opset], ir_version=9))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(FORMS), min_size=1, max_size=3),
    st.integers(1, 2), st.integers(0, 99), st.booleans(), st.booleans(),
    st.sampled_from((1e-12, 1e-6, 1e-5, 1e-3)), st.sampled_from(NORMS),
)  # fmt: skip
def test_random_stacks(
    forms: list[str],
    times: int,
    seed: int,
    numbered: bool,
    shared: bool,
    epsilon: float,
    norms: str,
) -> None:
    shared = shared and len(set(forms)) == 1
    model = Stack(seed, numbered, shared, epsilon, norms).model(forms * times)
    found = [block.name for block in n2n.blocks(model) if block.exact]
    for name in found:
        deeper = n2n.deepen(model, block=name)
        assert n2n.verify(model, deeper, seeds=1), name
        assert deeper.parameters > model.parameters
    if found:
        assert n2n.verify(model, n2n.deepen(model, block=found, copies=2), seeds=1)
        try:
            cancelling = n2n.deepen(model, block=found, zero="cancel")
        except n2n.Refused as refusal:
            assert refusal.remedy == "use --zero last, which is exact"
        else:
            assert n2n.verify(model, cancelling, seeds=1)


@pytest.mark.parametrize("epsilon", [1e-7, 1e-5, 1e-2])
@pytest.mark.parametrize("zero", ["last", "cancel"])
@pytest.mark.parametrize("norms", NORMS)
def test_norms_in_a_row_are_one_norm_whatever_their_epsilon(
    epsilon: float, zero: str, norms: str
) -> None:
    stack = Stack(3, numbered=True, shared=False, epsilon=epsilon, norms=norms)
    model = stack.model(["post-norm"] * 2)
    for copies in (1, 2, 12) if norms == "fused" else (1, 3):
        deeper = n2n.deepen(model, block="blocks.0", copies=copies, zero=zero)
        assert n2n.verify(model, deeper)
        found = [block.name for block in n2n.blocks(deeper) if block.exact]
        assert found == [f"blocks.{i}" for i in range(copies + 2)]
        assert n2n.verify(model, n2n.deepen(deeper, block=found))


@pytest.mark.parametrize("wrong", [(1e-3, 1.0), (1e5, 1.0)])
@pytest.mark.parametrize("norms", ["fused", "centred"])
def test_an_epsilon_that_takes_away_too_much_is_caught(
    monkeypatch: pytest.MonkeyPatch, wrong: tuple[float, float], norms: str
) -> None:
    stack = Stack(3, numbered=True, shared=False, epsilon=1e-3, norms=norms)
    model = stack.model(["post-norm"] * 2)
    monkeypatch.setattr(Steady, "of", lambda epsilon, far: Steady(wrong, (epsilon, 1.0), epsilon))
    assert not n2n.verify(model, n2n.deepen(model, block="blocks.0", copies=2))


@pytest.mark.parametrize(
    ("dtype", "epsilon", "exact"),
    [(np.float16, 0.0, True), (np.float16, 1e-5, False), (np.float16, 1.0, False),
     (np.float64, 1e-5, True)],
)  # fmt: skip
def test_an_epsilon_that_its_type_would_round_is_left_alone(
    dtype: type[np.floating], epsilon: float, exact: bool
) -> None:
    stack = Stack(3, numbered=True, shared=False, epsilon=epsilon, norms="centred", dtype=dtype)
    model = stack.model(["post-norm"] * 2)
    if exact:
        assert n2n.verify(model, n2n.deepen(model, block="blocks.0"))
    else:
        with pytest.raises(n2n.Refused, match=r"another epsilon of Add .* would be rounded"):
            n2n.deepen(model, block="blocks.0")


@pytest.mark.parametrize("norms", ["fused", "centred"])
def test_an_epsilon_that_stays_is_caught(monkeypatch: pytest.MonkeyPatch, norms: str) -> None:
    stack = Stack(3, numbered=True, shared=False, epsilon=1e-2, norms=norms)
    model = stack.model(["post-norm"] * 2)
    monkeypatch.setattr(Cloning, "_set_epsilon", lambda *_: None)
    assert not n2n.verify(model, n2n.deepen(model, block="blocks.0"))


def test_an_epsilon_that_is_rounded_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms_in_a_row, "_holds", lambda *_: True)
    stack = Stack(3, True, False, epsilon=1e-3, norms="centred", dtype=np.float16)
    model = stack.model(["post-norm"] * 2)
    with np.errstate(over="ignore"):
        deeper = n2n.deepen(model, block="blocks.0")
    assert not n2n.verify(model, deeper)
