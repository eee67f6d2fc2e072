"""Names that an export lost, recovered by value: original weights against the original file.

    recovered(grown, "original.safetensors", load("original.onnx"))["encoder.0.fc.weight"]

Each original tensor is looked for among the file's weights: equal, transposed, without axes of
size 1, or as the gates of a recurrent layer, which ONNX orders otherwise than PyTorch. Tensors of
equal contents are told apart by their names and by the module that their readers come from. The
grown model holds the same initializers, so its values follow, in the original's layout.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b

import numpy as np
from onnx import NodeProto, helper

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.constant_detection import computed
from onnx_net2net.frameworks.roles import Role, roles
from onnx_net2net.frameworks.state_dicts import Weights, weight_set
from onnx_net2net.model.graph import Graph, Node, scopes
from onnx_net2net.model.model import Computed, Model, Weight
from onnx_net2net.model.weights import Stored
from onnx_net2net.operators.types import FLOATS

__all__ = ["recovered"]

# Where PyTorch's gates lie among those of ONNX: i o f c against i f g o, z r h against r z n.
GATES = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1), "RNN": (0,)}
SHOWN = 8
UNFOLDED = "export the original again with onnx_net2net.from_torch, which keeps every weight"


@dataclass(frozen=True)
class Piece:
    """A weight, or the part of one that is one tensor in PyTorch, as ``take`` gives it."""

    name: str
    take: Callable[[np.ndarray], np.ndarray]
    modules: frozenset[str]


@dataclass
class WeightMatch:
    """A key of the original and the piece that holds its value, of shape ``before``."""

    key: str
    piece: Piece
    before: tuple[int, ...]
    transposed: bool


def recovered(model: Model, like: Weights, base: Model) -> dict[str, Weight]:
    """Return the weights of ``model`` under the names and in the layouts of ``like``.

    ``base`` is the file that was exported from ``like`` and that ``model`` was grown from. Raises
    Refused where a weight is not named, or where several could be meant that now differ.
    """
    original = weight_set(like)
    search = _Search(base, original)
    search.run()
    _check_folding(search)
    grown = _Grown(model, base, original)
    named: dict[str, Weight] = {}
    for key, weight in original.items():
        matches = search.matches.get(key)
        named[key] = grown.weight(key, matches) if matches else weight
    _check_ties(original, named)
    return named


@dataclass
class _Search:
    """Which piece of ``base`` holds which original tensor."""

    base: Model
    original: Mapping[str, Weight]
    matches: dict[str, list[WeightMatch]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)  # original tensors that the file does not hold
    unknown: list[str] = field(default_factory=list)  # the file's weights with no original

    def run(self) -> None:
        """Compare contents, then names and modules where contents are alike."""
        role = roles(self.base)
        pieces = list(_pieces(self.base))
        learned = [p for p in pieces if role[p.name] is not Role.CONSTANT]
        self._compare(learned)
        taken = {id(match.piece) for matches in self.matches.values() for match in matches}
        self.unknown = [p.name for p in learned if id(p) not in taken]
        self._compare([p for p in pieces if role[p.name] is Role.CONSTANT])
        for key, weight in self.original.items():
            sought = key not in self.matches and weight.dtype in FLOATS and weight.size > 1
            if sought and not computed(weight.array()):
                self.lost.append(key)

    def _compare(self, pieces: list[Piece]) -> None:
        """Look for the keys that are still missing among ``pieces``."""
        alike: dict[bytes, list[Piece]] = {}
        dtypes = set()
        for piece in pieces:
            weight = self.base.weights[piece.name]
            dtypes.add(helper.tensor_dtype_to_np_dtype(weight.dtype))
            alike.setdefault(_content(piece.take(weight.array()))[0], []).append(piece)
        groups: dict[bytes, list[str]] = {}
        for key, weight in self.original.items():
            if key in self.matches or weight.dtype not in FLOATS:
                continue
            for dtype in dtypes:
                with np.errstate(over="ignore"):
                    content, _ = _content(weight.array().astype(dtype, copy=False))
                if content in alike:
                    groups.setdefault(content, []).append(key)
                    break
        for content, keys in groups.items():
            self._assign(keys, alike[content])

    def _assign(self, keys: list[str], pieces: list[Piece]) -> None:
        """Give each key the pieces it can be: one by name or module, else all that are left."""
        left, waiting = list(pieces), list(keys)
        for fits in LIKENESS if len(pieces) > 1 else ():
            for key in list(waiting):
                own = [piece for piece in left if fits(key, piece)]
                if len(own) == 1:
                    self.matches[key] = [self._match(key, own[0])]
                    left.remove(own[0])
                    waiting.remove(key)
        for key in waiting:
            self.matches[key] = [self._match(key, piece) for piece in left or pieces]
        if not waiting:  # copies of a tied weight: they must stay alike
            self.matches[keys[0]] += [self._match(keys[0], piece) for piece in left]

    def _match(self, key: str, piece: Piece) -> WeightMatch:
        held = piece.take(self.base.weights[piece.name].array())
        _, ours = _content(self.original[key].array().astype(held.dtype))
        return WeightMatch(key, piece, held.shape, ours != _content(held)[1])


@dataclass
class _Grown:
    """The grown values, in the layout of the original."""

    model: Model
    base: Model
    original: Mapping[str, Weight]

    def weight(self, key: str, matches: list[WeightMatch]) -> Weight:
        """Return the grown tensor of one key, computed when it is read."""
        first, *others = [self._one(key, match) for match in matches]
        for other, match in zip(others, matches[1:], strict=True):
            same = other.shape == first.shape
            if not same or not np.array_equal(other.array(), first.array()):
                raise Refused(
                    key,
                    f"in the file it could be '{matches[0].piece.name}' or "
                    f"'{match.piece.name}', which were equal and now differ",
                    "if it is a tied weight that the export copied, untie it in the original "
                    f"(tie_word_embeddings=False) and give that state dict; else {UNFOLDED}",
                )
        return first

    def _one(self, key: str, match: WeightMatch) -> Weight:
        name = match.piece.name
        if name not in self.model.weights:
            raise Refused(name, "the grown model has no such weight", "give its own original file")
        weight, wanted = self.model.weights[name], self.original[key].shape
        compute = partial(_laid_out, weight, match, wanted)
        return Computed(key, weight.dtype, compute().shape, compute)


def _laid_out(weight: Weight, match: WeightMatch, wanted: tuple[int, ...]) -> np.ndarray:
    """Lay a grown piece out as the original; ``wanted`` is the original's old shape."""
    piece = match.piece.take(weight.array())
    if match.before == wanted and not match.transposed:
        return piece
    if match.before == wanted[::-1] and match.transposed:
        return np.ascontiguousarray(piece.T)
    sizes = list(zip(piece.shape, match.before, strict=True))
    if any(new > 1 for new, old in sizes if old == 1):
        raise Refused(match.key, "an axis of size 1 grew that the original lacks", UNFOLDED)
    core = piece.reshape([new for new, old in sizes if old > 1])
    core = np.ascontiguousarray(core.T) if match.transposed else core
    left = iter(core.shape)
    return core.reshape([1 if old == 1 else next(left) for old in wanted])


def _pieces(model: Model) -> Iterator[Piece]:
    """Yield all floating-point weights; those of recurrent layers in PyTorch's parts."""
    graph = Graph(model)
    for name, weight in model.weights.items():
        if weight.dtype not in FLOATS:
            continue
        readers = list(_readers(graph, name))
        modules = frozenset(path for node, _ in readers for path in _modules(node.proto))
        node, index = readers[0] if readers else (None, 0)
        if node is None or node.op not in GATES or index not in (1, 2, 3):
            yield Piece(name, _whole, modules)
            continue
        for direction in range(weight.shape[0]):
            for half in (0, 1) if index == 3 else (None,):
                take = partial(_gates, GATES[node.op], direction, half)
                yield Piece(name, take, modules)


def _readers(graph: Graph, name: str) -> Iterator[tuple[Node, int]]:
    """Yield the nodes that read a tensor, through views of it."""
    for node, index in graph.consumers.get(name, ()):
        if node.facts.reshapes and index == 0 and all(o in graph.derived for o in node.outputs):
            for output in node.outputs:
                yield from _readers(graph, output)
        else:
            yield node, index


def _whole(array: np.ndarray) -> np.ndarray:
    return array


def _gates(
    order: tuple[int, ...], direction: int, half: int | None, array: np.ndarray
) -> np.ndarray:
    """Return one direction (of a bias: one of its halves), its gates in PyTorch's order."""
    part = array[direction]
    if half is not None:
        part = part.reshape(2, -1)[half]
    gates = part.reshape(len(order), -1, *part.shape[1:])
    return np.ascontiguousarray(gates[list(order)].reshape(part.shape))


def _content(array: np.ndarray) -> tuple[bytes, bytes]:
    """Return digests without axes of size 1: of a matrix or its transpose, and its own."""
    plain = array.squeeze()
    own = _digest(plain)
    return (min(own, _digest(plain.T)) if plain.ndim == 2 else own), own


def _digest(array: np.ndarray) -> bytes:
    contents = np.ascontiguousarray(array)
    digest = blake2b(f"{array.dtype} {array.shape} ".encode(), digest_size=16)
    digest.update(contents.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.digest()


def _ends(one: str, other: str) -> bool:
    """Return whether one dotted name is the end of the other: a module may have been wrapped."""
    return bool(one and other) and (one.endswith("." + other) or other.endswith("." + one))


def _module(key: str) -> str:
    return key.rpartition(".")[0]


# How a key and a piece of equal contents are found to be the same, the surest first.
LIKENESS: tuple[Callable[[str, Piece], bool], ...] = (
    lambda key, piece: key == piece.name,
    lambda key, piece: _ends(key, piece.name),
    lambda key, piece: _module(key) in piece.modules,
    lambda key, piece: any(_ends(_module(key), module) for module in piece.modules),
)


def _modules(proto: NodeProto) -> Iterator[str]:
    """Yield the module path of a node, recorded or in its name ("/layers/layers.0/fc/MatMul")."""
    yield from scopes(proto)[-2:]
    if proto.name.startswith("/"):
        parts = proto.name.split("/")[1:-1]
        kept = [
            a for a, b in zip(parts, [*parts[1:], ""], strict=False) if not b.startswith(a + ".")
        ]
        yield ".".join(kept)


def _check_folding(search: _Search) -> None:
    """Raise where the file holds other weights than the original."""
    if not search.lost and not search.unknown:
        return
    folded = [key for key in search.lost if key.endswith(("running_mean", "running_var"))]
    if folded:
        raise Refused(
            _listed(folded),
            "the export folded BatchNormalization into other weights",
            UNFOLDED,
        )
    if search.lost:
        raise Refused(
            _listed(search.lost),
            "the original file holds no such values, neither equal nor transposed",
            "give the weights that this very file was exported from, without those that the "
            f"network does not read; or {UNFOLDED}",
        )
    raise Refused(
        _listed(search.unknown),
        "these weights of the original file equal none of the original weights",
        f"give the weights that this very file was exported from; or {UNFOLDED}",
    )


def _check_ties(original: Mapping[str, Weight], matched: Mapping[str, Weight]) -> None:
    """Raise where tensors that share their memory would now differ."""
    owners: dict[Hashable, str] = {}
    for key, weight in original.items():
        owner = owners.setdefault(_place(weight), key)
        if (
            owner != key
            and weight.size
            and not np.array_equal(matched[owner].array(), matched[key].array())
        ):
            raise Refused(
                key,
                f"it is tied to '{owner}', but the export copied it, and the copies now differ",
                "load the result into a class that does not tie them (for which the original's "
                f"state dict must hold two tensors), or {UNFOLDED}",
            )


def _place(weight: Weight) -> Hashable:
    """Return where the contents lie, in a file or memory: the same for tensors that share them."""
    if isinstance(weight, Stored):
        return id(weight.source), weight.offset, weight.shape
    array = weight.array()
    return array.__array_interface__["data"][0], array.shape, array.strides


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
