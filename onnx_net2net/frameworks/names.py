"""Which initializer a name outside the file means: paths, ties, wrappers of modules.

names = Names(model)
names.find("module.layer1.0.conv1.weight")       # "layer1.0.conv1.weight"
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from copy import copy

from onnx_net2net.errors import InvalidModel
from onnx_net2net.frameworks.paths import unique_paths
from onnx_net2net.frameworks.roles import paths
from onnx_net2net.model.history import TIES
from onnx_net2net.model.model import Model

__all__ = ["Names", "plain", "ties"]


# What PyTorch's wrappers (compile, FSDP, activation checkpoints) put into names anywhere, and
# what data parallelism puts in front of them.
WRAPPERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
PARALLEL = "module."


class Names:
    """The names under which a model's weights may be given."""

    def __init__(self, model: Model) -> None:
        self.ties = ties(model)
        self._prefix, self._wrapped = "", True
        self._known = {path: name for name, path in paths(model).items()}
        self._known |= self.ties
        self._known |= {name: name for name in model.weights}

    def before(self, former: Callable[[str], str | None]) -> Names:
        """Return the names of an earlier model, given what it called each weight, if it had it."""
        earlier = copy(self)
        earlier._known = {}
        for spelling, name in self._known.items():
            old = former(name)
            if old == name:
                earlier._known[spelling] = name
            elif old is not None:
                earlier._known |= dict.fromkeys((old, *unique_paths([old]).values()), old)
        return earlier

    def find(self, key: str) -> str | None:
        """Return the initializer that ``key`` means, None for no known one."""
        return next((self._known[k] for k in self._spellings(key) if k in self._known), None)

    def fit(self, keys: Collection[str]) -> None:
        """Learn in which module the file's module was wrapped, or that of ``keys``.

        Only where no key is known as it is, and one prefix, added to all or taken from all, makes
        every one known: "classifier.weight" then means "model.classifier.weight".
        """
        if not keys or any(self.find(key) is not None for key in keys):
            return
        first = next(iter(keys))
        added = {n[: -len(k)] for k in plain(first) for n in self._known if n.endswith("." + k)}
        parts = first.split(".")
        cut = {".".join(parts[:end]) + "." for end in range(1, len(parts))}
        fitting = []
        for prefixes, wrapped in ((added, True), (cut, False)):
            for self._prefix in prefixes:
                self._wrapped = wrapped
                if all(self.find(key) is not None for key in keys):
                    fitting.append((self._prefix, wrapped))
        self._prefix, self._wrapped = fitting[0] if len(fitting) == 1 else ("", True)

    def _spellings(self, key: str) -> Iterator[str]:
        """Yield ``key`` without what wrappers add, then with the prefix of :meth:`fit`."""
        yield from plain(key)
        for bare in plain(key) if self._prefix else ():
            if self._wrapped:
                yield self._prefix + bare
            elif bare.startswith(self._prefix):
                yield bare.removeprefix(self._prefix)


def plain(key: str) -> Iterator[str]:
    """Yield ``key``, then what is left of it without what wrappers add."""
    yield key
    bare = ".".join(part for part in key.split(".") if part not in WRAPPERS)
    yield bare
    while bare.startswith(PARALLEL):
        bare = bare.removeprefix(PARALLEL)
        yield bare


def ties(model: Model) -> dict[str, str]:
    """Return further names of tied weights: {alias: initializer}. Raises InvalidModel."""
    text = model.metadata.get(TIES)
    if text is None:
        return {}
    try:
        aliases = json.loads(text)
    except (ValueError, RecursionError):
        aliases = None
    if not isinstance(aliases, dict) or not all(isinstance(v, str) for v in aliases.values()):
        raise InvalidModel(f"metadata {TIES!r} is damaged", "export the model again")
    return {alias: owner for alias, owner in aliases.items() if owner in model.weights}
