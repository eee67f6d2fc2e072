"""What becomes of one backend test: right, wrong, refused, or a foreign exception.

outcome(case, TORCH)      # Outcome("right", ""), Outcome("refused", "operator X ..."), ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper

import onnx_net2net as n2n
from onnx_net2net.frameworks.torch.translation import DEFECT
from tests.backend.cases import Case

# Drawn at random: only types and shapes can be compared.
RANDOM = {
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}  # fmt: skip
# Relative to the largest value of the output.
RTOL = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-7}
COARSE = {"BFLOAT16": 8e-3}  # of types that are compared as float32; those of 8 bits are exact

Runner = Callable[[n2n.Model, dict[str, Any]], list[Any]]


@dataclass(frozen=True)
class Outcome:
    """``word`` is right, wrong, refused, crash, or stated.

    The judge is onnxruntime; where it does not run the model, what ONNX states ("stated": as that).
    """

    word: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.why else self.word


def outcome(case: Case, runner: Runner | None) -> Outcome:
    """Load, inspect and import the case, and compare what the import computes."""
    if runner is None:
        return loaded(case)
    given: list[Any] = []

    def run(model: n2n.Model) -> None:
        given.extend(runner(model, case.feeds))

    found = loaded(case, run)
    if found.word != "right":
        return found
    wanted = expected(case)
    judge, wanted = ("stated", case.stated) if wanted is None else ("right", wanted)
    problem = difference(case, wanted, given, 10.0 if judge == "stated" else 1.0)
    return Outcome("wrong", f"{problem} ({judge})") if problem else Outcome(judge)


def loaded(case: Case, then: Callable[[n2n.Model], None] = lambda model: None) -> Outcome:
    """Load and inspect the case, and do something with the model."""
    try:
        model = n2n.load(case.model)
        n2n.inspect(model)
        then(model)
    except n2n.Net2NetError as error:
        why = " ".join(str(error).split())
        return Outcome("crash" if DEFECT in why else "refused", why)
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        return Outcome("crash", f"{type(error).__name__}: {first}"[:300])
    return Outcome("right")


def expected(case: Case) -> list[Any] | None:
    """What onnxruntime computes, or None where it does not run the model."""
    model, feeds = _plain_types(case)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers)
        found: list[Any] = session.run(None, feeds)
    except Exception:  # onnxruntime's exceptions have no common class
        return None
    return found


def _plain_types(case: Case) -> tuple[ModelProto, dict[str, Any]]:
    """The model with float inputs and outputs where NumPy lacks their type (bfloat16, int4...)."""
    model = ModelProto()
    model.CopyFrom(case.model)
    feeds = dict(case.feeds)
    before, after = [], []
    for value in model.graph.input:
        plain = _plain_type(value)
        if plain is None or value.name not in feeds:
            continue
        kind = value.type.tensor_type
        before.append(helper.make_node("Cast", [value.name + "@"], [value.name], to=kind.elem_type))
        feeds[value.name + "@"] = feeds.pop(value.name).astype(plain)
        value.name += "@"
        kind.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(plain))
    for value in model.graph.output:
        plain = _plain_type(value)
        if plain is not None:
            target = helper.np_dtype_to_tensor_dtype(np.dtype(plain))
            after.append(helper.make_node("Cast", [value.name], [value.name + "@"], to=target))
            value.name += "@"
            value.type.tensor_type.elem_type = target
    nodes = [*before, *model.graph.node, *after]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model, {name: value for name, value in feeds.items() if value is not None}


def _plain_type(value: Any) -> str | None:
    """The NumPy type that holds all values of an element type that NumPy lacks, else None."""
    if not value.type.HasField("tensor_type"):
        return None
    name = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if name.startswith(("BFLOAT", "FLOAT8", "FLOAT4", "FLOAT6")):
        return "float32"
    return "int8" if name.startswith(("INT4", "UINT4", "INT2", "UINT2")) else None


def difference(case: Case, wanted: list[Any], given: list[Any], slack: float) -> str:
    """What differs; ``slack``: what ONNX states is written down with few digits."""
    if len(wanted) != len(given):
        return f"{len(given)} outputs instead of {len(wanted)}"
    random = any(node.op_type in RANDOM for node in case.model.graph.node)
    for index, (a, b) in enumerate(zip(wanted, given, strict=True)):
        described = case.model.graph.output[index]
        kind = TensorProto.DataType.Name(described.type.tensor_type.elem_type)
        problem = _unlike(a, b, random, _plain_type(described), COARSE.get(kind, 0.0), slack)
        if problem:
            return f"output {index}: {problem}"
    return ""


def _unlike(want: Any, got: Any, random: bool, plain: str | None, rtol: float, slack: float) -> str:
    """What differs between two values: arrays, lists of arrays, or None."""
    if isinstance(want, list) or isinstance(got, list) or want is None or got is None:
        if type(want) is not type(got):
            return f"{type(got).__name__} instead of {type(want).__name__}"
        if want is None:
            return ""
        if len(want) != len(got):
            return f"{len(got)} pieces instead of {len(want)}"
        found = (_unlike(a, b, random, None, 0.0, slack) for a, b in zip(want, got, strict=True))
        return next((problem for problem in found if problem), "")
    want, got = np.asarray(want), np.asarray(got)
    precision = str(want.dtype)
    if plain is not None:
        want, got = want.astype(plain), got.astype(plain)
    if want.dtype != got.dtype:
        return f"type {got.dtype} instead of {want.dtype}"
    if want.shape != got.shape:
        return f"shape {got.shape} instead of {want.shape}"
    if random:
        return ""
    return _unequal(want, got, slack * (rtol if plain else RTOL.get(precision, 0.0)))


def _unequal(want: np.ndarray, got: np.ndarray, rtol: float) -> str:
    if want.dtype.kind in "fc":
        finite = np.abs(want[np.isfinite(want)])
        atol = rtol * min(float(finite.max(initial=0)), 1e30)
        same = np.isclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
    else:
        same = np.asarray(got == want)
    if same.all():
        return ""
    at = np.flatnonzero(~same.reshape(-1))
    first = at[0]
    return (
        f"{len(at)} of {want.size} differ, first {got.reshape(-1)[first]} "
        f"instead of {want.reshape(-1)[first]}"
    )
