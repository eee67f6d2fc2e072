"""Forms of operators beyond those that ONNX tests: attributes x ranks x types, as cases.

    for case in forms("pooling"):
        outcome(case, TORCH)

A family is a table of nodes and of the arrays that they are given; onnxruntime is the judge, and
forms that it does not run are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.backend.cases import Case

Arrays = dict[str, np.ndarray]
Family = Callable[[], Iterator[Case]]
FAMILIES: dict[str, Family] = {}


def family(function: Family) -> Family:
    """Note a family under its function's name."""
    FAMILIES[function.__name__] = function
    return function


def forms(*names: str, one_in: int = 1, open_sizes: bool = False) -> Iterator[Case]:
    """The cases of some families, by default of all, or a part of them.

    ``open_sizes``: no size of an input is written down.
    """
    for name in names or FAMILIES:
        _sampling.one_in, _sampling.seen, _sampling.open_sizes = one_in, 0, open_sizes
        yield from (found for found in FAMILIES[name]() if found is not None)


def some(name: str, count: int, open_sizes: bool = False) -> Iterator[Case]:
    """About so many cases of a family, from all over it."""
    size = sum(1 for _ in _counted(name))
    odd = max(1, size // count) | 1  # or each would have the same choice in the inmost loop
    return forms(name, one_in=odd, open_sizes=open_sizes)


def _counted(name: str) -> Iterator[Case]:
    _sampling.one_in, _sampling.seen = 10**9, 0
    return FAMILIES[name]()


@dataclass
class _Sampling:
    """Which cases are made at all: the first, and one in so many."""

    one_in: int = 1
    seen: int = 0
    open_sizes: bool = False

    def skips(self) -> bool:
        self.seen += 1
        return (self.seen - 1) % self.one_in != 0


_sampling = _Sampling()


def grid(**choices: list[Any]) -> Iterator[dict[str, Any]]:
    """Every combination; what is None is left out."""
    for values in itertools.product(*choices.values()):
        yield {k: v for k, v in zip(choices, values, strict=True) if v is not None}


def real(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Numbers about zero; integers from -9 to 9, or 0 to 9."""
    rng = np.random.default_rng(seed + sum(shape))
    if np.dtype(dtype).kind in "iu":
        low = 0 if np.dtype(dtype).kind == "u" else -9
        return rng.integers(low, 10, shape).astype(dtype)
    if dtype == "bool":
        return rng.random(shape) > 0.5
    return rng.normal(size=shape).astype(dtype)


def ints(*values: int) -> np.ndarray:
    """A vector of int64."""
    return np.array(values, np.int64)


def case(
    op: str,
    feeds: dict[str, np.ndarray | None],
    stored: tuple[str, ...] = (),
    opset: int = 21,
    outputs: int | tuple[str, ...] = 1,
    domain: str = "",
    dynamic: bool = False,
    **attributes: Any,
) -> Case:
    """One node. ``stored`` operands are initializers; ``dynamic``: no size is written down."""
    if _sampling.skips():
        return None  # type: ignore[return-value]
    names = [name if value is not None else "" for name, value in feeds.items()]
    results = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else list(outputs)
    node = helper.make_node(op, names, results, domain=domain, **attributes)
    arrays = {name: value for name, value in feeds.items() if value is not None}
    given = {name: value for name, value in arrays.items() if name not in stored}
    inputs = []
    for name, value in given.items():
        dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
        unknown = dynamic or _sampling.open_sizes
        shape = [f"{name}{i}" for i in range(value.ndim)] if unknown else value.shape
        inputs.append(helper.make_tensor_value_info(name, dtype, shape))
    graph = helper.make_graph(
        [node],
        op,
        inputs,
        [onnx.ValueInfoProto(name=name) for name in results if name],
        [numpy_helper.from_array(arrays[name], name) for name in stored if name in arrays],
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    text = " ".join(
        f"{k}={v.dtype}{list(v.shape)}{'' if k not in stored else v.reshape(-1)[:6].tolist()}"
        for k, v in arrays.items()
    )
    stated = " ".join(f"{k}={v}" for k, v in attributes.items())
    kind = " dynamic" if dynamic or _sampling.open_sizes else ""
    return Case(f"{op}-{opset}{kind} {text} {stated}".strip(), model, given, [])
