"""Trained weights back into the graph: same nodes, new numbers.

    trained = absorb(grown, "trained.safetensors")     # or a state dict, a module, a Keras model
    trained.save("trained.onnx")

So that the file stays the master: grow, export, train, absorb, grow again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
from onnx import helper

from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks.names import Names
from onnx_net2net.frameworks.roles import Role, roles
from onnx_net2net.frameworks.state_dicts import Weights, held, weight_set
from onnx_net2net.model import history
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.model.model import AnyModel, Model, Weight, load
from onnx_net2net.model.unread import unread
from onnx_net2net.model.weights import Stored
from onnx_net2net.operators.types import FLOATS

__all__ = ["absorb"]

# Counts batches for BatchNormalization's cumulative average; inference and the graph know no such
# number.
COUNTERS = "*num_batches_tracked"
SHOWN = 12  # names for each problem in a message


def absorb(
    model: AnyModel, weights: Weights, *, cast: bool = False, ignore: Iterable[str] = ()
) -> Model:
    """Return ``model`` with the values of ``weights``: the same graph, nothing else changed.

    ``weights`` is a state dict or another mapping of names to arrays, the path of a .safetensors,
    .npz or .pt file, a PyTorch module, or a Keras model. Names are those of initializers or their
    paths in :func:`to_torch`'s and :func:`to_keras`'s models; what DistributedDataParallel, FSDP
    and ``torch.compile`` add to them is understood, and so is one prefix for all of them, where one
    of the modules wrapped the other. Every parameter and BatchNormalization
    statistic that the network reads must be given, with its shape; other tensors may be, those that
    it does not read in any shape. ``num_batches_tracked``, which the graph does not have, is left
    out, and so are names that match a pattern in ``ignore``.
    Arrays are copied; a .safetensors file is read when the model is saved, and must last till then.

    A state dict does not say how its matrices lie: they are taken to lie as in the file, where the
    shapes agree. Of a module's Linear layers that is known, and checked.

    Values of another type are taken where the file's type holds them exactly; ``cast=True`` rounds
    them. Raises one UsageError for all names that are unknown or missing, all shapes and types that
    do not fit, and all values that are not finite.
    """
    model = load(model)
    given = weight_set(_by_initializer(model, weights))
    plan = _Replacement(model, cast)
    skipped = (COUNTERS, *ignore)
    kept = [key for key in given if not any(fnmatchcase(key, p) for p in skipped)]
    plan.names.fit(kept)
    turned = _turned(plan.names, model, weights)
    for key in kept:
        if key in turned:
            plan.wrong.setdefault("turned", []).append(key)
        else:
            plan.add(key, given[key])
    plan.finish()
    proto = model.editable()
    details = {"weights": len(plan.contents)}
    history.append(proto, "absorb", model.sha256(), details)
    return model.with_changes(proto, plan.contents)


def _by_initializer(model: Model, weights: Weights) -> Weights:
    """Return the values of a Keras model that was made from ``model``, else what is given."""
    if not isinstance(getattr(weights, "layers", None), list) or not hasattr(weights, "weights"):
        return weights
    from onnx_net2net.frameworks.keras.importer import contents

    values = contents(model, weights)
    return weights if values is None else values


def _turned(names: Names, model: Model, weights: Weights) -> set[str]:
    """Return a module's square Linear weights that the file multiplies from the other side.

    Linear holds (outputs, inputs); where the sizes differ, the shape tells.
    """
    modules = getattr(weights, "named_modules", None)
    if modules is None:
        return set()
    graph, turned = Graph(model), set()
    for path, module in modules():
        key = f"{path}.weight".lstrip(".")
        name = names.find(key) if type(module).__name__ == "Linear" else None
        if name is not None and _square(model.weights[name].shape):
            places = graph.consumers.get(name, [])
            if any(_holds_columns(node, index) for node, index in places):
                turned.add(key)
    return turned


def _square(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] == shape[1] > 1


def _holds_columns(node: Node, index: int) -> bool:
    """Return whether a node multiplies its operand from the right: columns are outputs."""
    turned = any(a.name == "transB" and a.i for a in node.proto.attribute)
    return index == 1 and not node.domain and node.op in ("Gemm", "MatMul") and not turned


@dataclass
class _Replacement:
    """New contents by initializer, and what is wrong, by problem."""

    model: Model
    cast: bool
    contents: dict[str, Weight] = field(default_factory=dict)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = Names(self.model)
        self.roles = roles(self.model)
        # Whole numbers may be read after all: PyTorch's exporter computes with them ahead.
        self.unread = {n for n in unread(self.model) if self.model.weights[n].dtype in FLOATS}

    def add(self, key: str, weight: Weight) -> None:
        """Take ``weight``, given as ``key``, or note what is wrong with it."""
        name = self.names.find(key)
        if name is None:
            self.wrong.setdefault("unknown", []).append(key)
            return
        if name in self.unread:  # of whatever size it is in a larger module
            self.contents[name] = held(name, np.array(weight.array()))
            return
        own = self.model.weights[name]
        if weight.shape != own.shape:
            line = f"{key} is {list(weight.shape)}, not {list(own.shape)}"
            self.wrong.setdefault("shape", []).append(line)
            return
        array = weight.array()
        problem = self._unfit(name, array, own) or self._untied(key, name, array)
        if problem:
            self.wrong.setdefault(problem, []).append(key)
            return
        dtype = helper.tensor_dtype_to_np_dtype(own.dtype)
        # A module goes on training: what lies in its memory is copied, what lies in a file is not.
        unread = isinstance(weight, Stored) and weight.dtype == own.dtype
        self.contents[name] = weight.renamed(name) if unread else held(name, np.array(array, dtype))

    def _unfit(self, name: str, array: np.ndarray, own: Weight) -> str:
        """Say what is wrong with the values, "" for nothing."""
        if own.dtype not in FLOATS:
            return "" if np.array_equal(array, own.array()) else "integers"
        infinite = np.isinf(array).any()
        if np.isnan(array).any() or (infinite and self.roles[name] is not Role.CONSTANT):
            return "not finite"
        dtype = helper.tensor_dtype_to_np_dtype(own.dtype)
        if array.dtype == dtype:
            return ""
        with np.errstate(over="ignore"):
            narrow = array.astype(dtype)
        if np.isinf(narrow).any() and not infinite:
            return "too large"
        exact = array.dtype.kind != "b" and np.array_equal(narrow.astype(array.dtype), array)
        return "" if exact or self.cast else "type"

    def _untied(self, key: str, name: str, array: np.ndarray) -> str:
        """Say whether another name of the same weight was given another value, "" if not."""
        if name not in self.contents:
            return ""
        return "" if np.array_equal(self.contents[name].array(), array) else "tied"

    def finish(self) -> None:
        """Note what is missing, and raise one error for all that is wrong."""
        missing = [
            name
            for name, role in self.roles.items()
            if role is not Role.CONSTANT and name not in self.contents.keys() | self.unread
        ]
        refused = {self.names.find(key) for key in self._refused()}
        missing = [name for name in missing if name not in refused]
        if missing:
            self.wrong["missing"] = missing
        if self.wrong:
            raise UsageError(*_message(self.wrong))

    def _refused(self) -> list[str]:
        """Return the keys that were given, but did not fit."""
        lines = [line for lines in self.wrong.values() for line in lines]
        return [line.split(" is [")[0] for line in lines]


PROBLEMS: Mapping[str, tuple[str, str]] = {
    "unknown": (
        "names that the model does not have",
        "give the weights of a module made from this very model, or ignore=[...] (--ignore)",
    ),
    "missing": ("weights that are not given", "give all parameters and statistics"),
    "shape": ("wrong shapes", "export this model again, and train that"),
    "not finite": ("NaN or infinite values", "the training diverged: take an earlier checkpoint"),
    "too large": ("values beyond the range of the file's type", "scale them, or widen the type"),
    "type": (
        "values that the file's type cannot hold exactly",
        "round them with cast=True (--cast)",
    ),
    "turned": (
        "square weights of Linear layers, which are transposed in the file",
        "give their transposes by name, or the module of to_torch",
    ),
    "integers": ("other values for a tensor of integers, which is not trained", "leave it out"),
    "tied": ("other values than another name of the same tied weight", "give them once"),
}


def _message(wrong: Mapping[str, list[str]]) -> tuple[str, str]:
    """Return problem and remedy for everything that is wrong."""
    lines = ["these weights do not fit the model:"]
    for problem, keys in wrong.items():
        more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        lines.append(f"  {PROBLEMS[problem][0]}: {', '.join(keys[:SHOWN])}{more}")
    return "\n".join(lines), "; ".join(PROBLEMS[problem][1] for problem in wrong)
