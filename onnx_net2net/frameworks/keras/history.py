"""The operations that symbolic tensors are made by, and what they are called.

for operation in operations([logits]):               # the last first
    operation.name = valid_name("layer1/conv")       # "layer1_conv"
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

__all__ = ["GivenName", "operations", "recursion", "valid_name"]


class GivenName(str):
    """A name that is no number of Keras'."""

    __slots__ = ()


def operations(values: Sequence[Any], known: Collection[Any] = ()) -> Iterator[Any]:
    """Yield the operations that ``values`` are made by, each once, but not what ``known`` reaches.

    An operation may become known once it is yielded.
    """
    pending, reached = [value._keras_history.operation for value in values], set()
    while pending:
        operation = pending.pop()
        if operation in reached or operation in known:
            continue
        reached.add(operation)
        yield operation
        nodes = operation._inbound_nodes
        pending += [x._keras_history.operation for node in nodes for x in node.input_tensors]


@contextmanager
def recursion(depth: int) -> Iterator[None]:
    """Let calls nest that much deeper: Keras follows a graph from its outputs by recursion."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + depth)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def valid_name(name: str) -> str:
    """Return a name as Keras and its backend allow it: PyTorch has no dots in names."""
    others = r"\W" if keras.backend.backend() == "torch" else r"[^\w.]"
    plain = re.sub(others, "_", name.removesuffix("_output_0"), flags=re.ASCII).strip("._")
    return plain if plain[:1].isalpha() else f"graph_{plain}".rstrip("_")
