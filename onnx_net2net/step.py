"""One step of growth: a line of a plan, an entry of a history, and what is carried out.

    Widen(widths={"conv1": 96}, seed=3)
    Deepen(block=["layer3.*"], copies=2, spread=True)
    parse_step({"operation": "widen", "factor": 2, "all": True}, "plan.toml: step 1")

Every argument of :func:`onnx_net2net.widen` and :func:`onnx_net2net.deepen` is declared here and
nowhere else: its default, what it may be, and how the command line explains it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from fractions import Fraction
from typing import Any, ClassVar

from onnx_net2net.errors import InvalidModel, Refused, UsageError

MOST = 1000  # layers or copies at one place
_SMALLEST = 1e-100  # numbers below it, and above its inverse, are none that anybody means
_DIGITS = 200


def exact_number(text: str) -> Fraction:
    """Read an exact number: 1.1 of 10 is 11, which binary fractions do not know.

    Raises ValueError for none, and for one that no size has: 1e999999999 alone would take hours.
    """
    rough = float(text)
    if not (rough == 0 or _SMALLEST < abs(rough) < 1 / _SMALLEST) or len(text) > _DIGITS:
        raise ValueError(f"{text[:_DIGITS]} is out of range")
    return Fraction(text) if rough else Fraction(0)


def listed(names: str | Iterable[str]) -> list[str]:
    """Return names as a list, also where a single one stands for itself."""
    return [names] if isinstance(names, str) else list(names)


def shown(value: Any) -> str:
    """Return a value as an error shows it: never longer than a few lines."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    try:
        text = str(float(value)) if isinstance(value, Fraction) else repr(value)
    except (ValueError, OverflowError):  # Python writes no number of more than 4,300 digits
        text = "a number beyond all bounds"
    return text if len(text) <= _DIGITS else f"{text[:_DIGITS]} ..."


# What an argument may be -------------------------------------------------------------------------


@dataclass(frozen=True)
class ArgumentKind:
    """What an argument may be; ``text`` says so.

    ``known`` are the only words, ``least`` and ``most`` bound whole numbers, ``each`` is what the
    values of a table are.
    """

    text: str
    holds: Callable[[Any], bool]
    known: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    each: ArgumentKind | None = None

    def problem(self, name: str, value: Any) -> str | None:
        """Say what is wrong with ``value``, if anything is."""
        if self.each is not None and isinstance(value, Mapping):
            for key, number in value.items():
                if not self.each.holds(number):
                    return f"{name}: '{key}': {shown(number)} is not {self.each.text}"
            return None
        return None if self.holds(value) else f"{name}: {shown(value)} is not {self.text}"


class Split(StrEnum):
    """How copies of a unit share what reads it."""

    PROJECT = "project"  # random parts that add up exactly
    EVEN = "even"  # equal parts: copies never part
    FRESH = "fresh"  # no copies: new units, which nothing reads yet
    NOISE = "noise"  # equal parts and noise, which is not exact


class Zero(StrEnum):
    """How a copy of a block begins as the identity."""

    LAST = "last"  # the last projections are zero
    CANCEL = "cancel"  # equal units cancel one another


def _one_of(*known: str) -> ArgumentKind:
    known = tuple(map(str, known))
    return ArgumentKind(
        f"one of {', '.join(known)}", lambda v: isinstance(v, str) and v in known, known
    )


def _whole(least: int, most: int | None = None) -> ArgumentKind:
    def holds(value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and least <= value and (most is None or value <= most)

    text = f"a whole number from {least} {'up' if most is None else f'to {most}'}"
    return ArgumentKind(text, holds, least=least, most=most)


def _number(text: str, above: float, below: float, *, ends: bool = False) -> ArgumentKind:
    def holds(value: Any) -> bool:
        real = isinstance(value, int | float | Fraction) and not isinstance(value, bool)
        return real and (above < value < below or (ends and value in (above, below)))

    return ArgumentKind(text, holds)


def _are_names(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list | tuple) and all(isinstance(n, str) and n for n in names)


def _is_window(value: Any) -> bool:
    sizes = value if isinstance(value, list | tuple) else [value]
    return bool(sizes) and all(map(_SIZE.holds, sizes))


_SIZE = _whole(1)
_COUNT = _whole(1, MOST)
_SEED = _whole(0)
FLAG = ArgumentKind("true or false", lambda value: isinstance(value, bool))
NAMES = ArgumentKind("a name or a list of names", _are_names)
WINDOW = ArgumentKind("a whole number from 1 up, or a list of such", _is_window)
_WIDTHS = ArgumentKind("a table such as { conv1 = 96 }", lambda value: False, each=_SIZE)
_BLOCKS = ArgumentKind(
    "a name, a list of names, or a table of copies by name", _are_names, each=_COUNT
)


def _argument(
    kind: ArgumentKind, default: Any = None, text: str = "", metavar: str = "", how: bool = False
) -> Any:
    """Declare an argument, which the command line explains by ``text``."""
    about = {"kind": kind, "text": text, "metavar": metavar, "how": how}
    return field(default=default, metadata=about)


def _setting(kind: ArgumentKind, default: Any, text: str, metavar: str = "") -> Any:
    """Declare one of those that say how, not what: plans have them written out."""
    return _argument(kind, default, text, metavar, how=True)


# The steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What is to be done to a model. Raises UsageError for arguments that make no sense."""

    operation: ClassVar[str]
    method: ClassVar[int] = 1  # another number wherever the same arguments draw other weights

    def __post_init__(self) -> None:
        for argument in fields(self):
            value, default = getattr(self, argument.name), argument.default
            if value is None and default is None:
                continue
            problem = argument.metadata["kind"].problem(argument.name, value)
            if problem is not None:
                means = "" if default in (None, ()) else f" for {default!r}"
                raise UsageError(problem, f"correct it, or leave it away{means}")
        self._check()

    def _check(self) -> None:
        """Raise UsageError where arguments do not go together."""

    @classmethod
    def arguments(cls) -> dict[str, Field[Any]]:
        """Return the declarations by name."""
        return {argument.name: argument for argument in fields(cls)}

    @property
    def exact(self) -> bool:
        """Whether the function stays the same up to rounding."""
        return True

    def settings(self) -> dict[str, Any]:
        """Return the arguments that say how, not what."""
        return {n: getattr(self, n) for n, a in self.arguments().items() if a.metadata["how"]}

    def written(self) -> dict[str, Any]:
        """Return what a plan has to say: all settings, and what else is not the default."""
        return {
            name: value
            for name, argument in self.arguments().items()
            if (value := getattr(self, name)) is not None
            and (argument.metadata["how"] or value != argument.default)
        }


@dataclass(frozen=True)
class Fold(Step):
    """Compute first what the graph computes from weights alone."""

    operation = "fold"


@dataclass(frozen=True)
class Widen(Step):
    """Grow dimensions: to ``widths``, or by ``factor`` those of these ``names``, or all."""

    operation = "widen"
    method = 3
    seed: int = _setting(_SEED, 0, "Seed of all that is random.")
    split: str = _setting(
        _one_of(*Split), str(Split.PROJECT), "How copies of a unit share what reads it."
    )
    amplitude: float = _setting(
        _number("a number from 0 to 10", 0, 10, ends=True), 1.0,
        "With --split project: of its random parts, relative to the weights of a fresh layer.",
    )  # fmt: skip
    noise: float = _setting(
        _number("a number between 0 and 1", 0, 1), 0.01,
        "With --split noise: its standard deviation, relative to the weight; "
        "0.01 hardly lets copies part, 0.05 to 0.2 do.",
    )  # fmt: skip
    mapping: str = _setting(_one_of("random", "round-robin"), "random", "Which units are copied.")
    widths: Mapping[str, int] | None = _argument(_WIDTHS)
    factor: Fraction | float | None = _argument(  # noqa: RUF009
        _number("a number above 1", 1, 1 / _SMALLEST)
    )
    names: str | Sequence[str] = _argument(NAMES, ())
    all: bool = _argument(FLAG, False)

    def _check(self) -> None:
        scaled = [key for key in ("names", "all") if getattr(self, key)]
        if self.factor is None and not self.widths:
            raise UsageError("nothing to grow", "give widths, or a factor with names")
        if self.factor is not None and self.widths is not None:
            problem = "'widths' and 'factor' exclude each other"
            raise UsageError(problem, "give widths, or a factor with names")
        if self.factor is None and scaled:
            raise UsageError(f"key '{scaled[0]}' goes with 'factor' only", "leave it away")
        if self.factor is not None and len(scaled) != 1:
            raise UsageError("'factor' needs names, or all = true", 'names = ["layer2.*"]')

    @property
    def exact(self) -> bool:
        return self.split != Split.NOISE

    @property
    def parts(self) -> float:
        """The amplitude of random parts that cancel; 0 where copies share equally."""
        return 0.0 if self.split == Split.EVEN else self.amplitude


@dataclass(frozen=True)
class Deepen(Step):
    """Insert layers ``after`` places, and copies of blocks; ``calibrate`` names files of inputs."""

    operation = "deepen"
    method = 3
    after: str | Sequence[str] = _argument(
        NAMES,
        (),
        "Insert behind this node, tensor, parameter or module, or a glob; repeats.",
        "NAME",
    )
    calibrate: str | Sequence[str] = _argument(
        NAMES, (), "Inputs to measure BatchNorm statistics on: an .npz file, or a folder.", "PATH"
    )
    block: str | Sequence[str] | Mapping[str, int] = _argument(
        _BLOCKS, (), "Copy this block, or a glob; repeats. See inspect --blocks.", "NAME"
    )
    init: str = _setting(
        _one_of("auto", "identity", "residual", "factor"), "auto", "How inserted layers begin."
    )
    count: int = _setting(_COUNT, 1, "Layers at each place.", "N")
    kernel: int | Sequence[int] | None = _setting(
        WINDOW, None, "The window of inserted convolutions.  [default: as the neighbour's]", "K[xK]"
    )
    norm: bool | None = _setting(
        FLAG, None, "With or without BatchNorm.  [default: as the neighbour, with --calibrate]"
    )
    copies: int = _argument(_COUNT, 1, "Copies behind each block; with --spread in all.", "N")
    every: int = _argument(_COUNT, 1, "Only behind every K-th of the blocks.", "K")
    spread: bool = _argument(FLAG, False, "Spread the copies evenly over the blocks.")
    renumber: bool = _setting(
        FLAG, True, "Let later blocks make room for numbers of copies, else NAME_copy1."
    )
    zero: str = _setting(
        _one_of(*Zero), str(Zero.LAST), "How copies vanish: zeros, or equal units that cancel."
    )
    seed: int = _setting(_SEED, 0, "Seed of all that is random.")

    @property
    def window(self) -> tuple[int, ...] | None:
        """The sizes of the kernel, where it is given."""
        sizes = (self.kernel,) if isinstance(self.kernel, int) else self.kernel
        return None if sizes is None else tuple(sizes)

    def _check(self) -> None:
        if not self.after and not self.block:
            raise UsageError("nothing to deepen", "name a layer (after) or a block (block)")
        if isinstance(self.block, Mapping):
            for key in ("copies", "every", "spread"):
                if getattr(self, key) != self.arguments()[key].default:
                    problem = f"key '{key}' does not go with copies by block"
                    raise UsageError(problem, "leave it away, or give a list of blocks")


STEPS: dict[str, type[Step]] = {kind.operation: kind for kind in (Widen, Deepen, Fold)}


# Reading -----------------------------------------------------------------------------------------


def parse_step(values: Mapping[str, Any], place: str) -> Step:
    """Return the step that ``values`` are, as a plan has them; ``place`` is how errors name it."""
    operation = values.get("operation")
    kind = STEPS.get(operation) if isinstance(operation, str) else None
    if kind is None:
        problem = "has no operation" if operation is None else f"unknown operation {operation!r}"
        raise UsageError(f"{place}: {problem}", 'operation = "widen" or operation = "deepen"')
    place, arguments = f"{place} ({operation})", kind.arguments()
    given = {key: value for key, value in values.items() if key != "operation"}
    check_keys(given, arguments, place)
    for key, value in given.items():
        if isinstance(value, Fraction) and arguments[key].type == "float":
            given[key] = float(value)
    try:
        return kind(**given)
    except UsageError as error:
        raise error.within(place) from None


def check_keys(values: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    """Raise UsageError for a key that is none of the ``known``."""
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), list(known), n=1)
            remedy = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
            raise UsageError(f"{place}: unknown key '{key}'", remedy)


def recorded(entry: Mapping[str, Any]) -> Step:
    """Return the step that an entry of a history tells of, with names and numbers only.

    Raises InvalidModel where it does not tell enough, Refused where it was done by another method.
    """
    kind, place = STEPS[entry["operation"]], f"step '{entry['operation']}' of the history"
    remedy = "take the file that this program wrote"
    if (method := entry.get("method", 1)) != kind.method:
        reason = f"it was done by method {shown(method)}, and this program does it by {kind.method}"
        raise Refused(place, reason, "begin with the model behind this step")
    values: dict[str, Any] = {}
    for name, argument in kind.arguments().items():
        if argument.metadata["how"] and name not in entry:
            raise InvalidModel(f"{place}: '{name}' is missing", remedy)
        if argument.metadata["how"] or (name in ("after", "block") and entry.get(name)):
            values[name] = entry[name]  # nothing else, above all no files to be read
    if kind is Widen:
        values["widths"] = {c.get("dimension"): c.get("new") for c in entry["changes"]}
    try:
        return kind(**values)
    except UsageError as error:
        raise InvalidModel(f"{place}: {error.problem}", remedy) from None
