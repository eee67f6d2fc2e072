"""Options that several commands have, and types that click does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_net2net.errors import UsageError
from onnx_net2net.step import FLAG, NAMES, WINDOW

if TYPE_CHECKING:
    from dataclasses import Field
    from fractions import Fraction

    from onnx_net2net.step import Step

F = TypeVar("F", bound=Callable[..., Any])


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Join several decorators into one."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class InOrder(click.Command):
    """A command that remembers the order of ``--node``, ``--dim`` and ``--width``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, and put what stood in which order into ``order``."""
        # Click groups repeated options by name; its parser knows how they stood.
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        rest = super().parse_args(ctx, args)
        values = {name: iter(ctx.params.pop(name)) for name in ("node", "dim", "width")}
        names = [parameter.name for parameter in order if parameter.name in values]
        ctx.params["order"] = [(name, next(values[name])) for name in names if name]
        return rest


class NamedValue(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """``NAME=VALUE``, or ``VALUE`` alone (its name is then empty)."""

    name = "setting"

    def __init__(self, read: Callable[[str], Any], example: str, *, named: bool = False) -> None:
        self.read = read
        self.example = example
        self.named = named

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, _, right = str(value).rpartition("=")
        try:
            if self.named and not name:
                raise ValueError
            return name, self.read(right)
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is not of the form {self.example}", param, ctx)


def interval(value: str) -> tuple[float, float]:
    """Read ``-1:1`` as (-1.0, 1.0)."""
    low, high = value.split(":")
    return float(low), float(high)


def sizes(value: str) -> list[int]:
    """Read ``1,3`` as [1, 3]."""
    return [int(part) for part in value.split(",")]


class Factor(click.ParamType):  # type: ignore[type-arg]
    """An exact number: 1.1 of 10 is 11, which binary fractions do not know."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fraction:
        from fractions import Fraction

        from onnx_net2net.step import exact_number

        try:
            return value if isinstance(value, Fraction) else exact_number(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a number such as 1.5", param, ctx)


class Kernel(click.ParamType):  # type: ignore[type-arg]
    """A kernel: ``3`` or ``1x7``."""

    name = "window"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        sizes = str(value).lower().split("x")
        if not all(size.isdecimal() and len(size) < 10 and int(size) for size in sizes):
            self.fail(f"{value!r} is not a window such as 3 or 1x7", param, ctx)
        return tuple(map(int, sizes))


def verify_arguments(
    seeds: int,
    ranges: Sequence[tuple[str, tuple[float, float]]],
    sizes: Sequence[tuple[str, list[int]]],
    inputs: Sequence[Path],
    provider: str | None,
    rtol: Sequence[tuple[str, float]] = (),
    atol: Sequence[tuple[str, float]] = (),
    sample: bool = False,
) -> dict[str, Any]:
    """Turn options of the command line into arguments of :func:`onnx_net2net.verify`."""
    return {
        "seeds": seeds,
        "ranges": _one_or_named("--range", ranges),
        "sizes": dict(sizes) or None,
        "inputs": list(inputs) or None,
        "provider": provider,
        "rtol": _one_or_named("--rtol", rtol),
        "atol": _one_or_named("--atol", atol),
        "sample": sample,
    }


def _one_or_named(option: str, settings: Sequence[tuple[str, Any]]) -> Any:
    """Return one value for all, or values by name; None where nothing was given."""
    values = dict(settings)
    if "" not in values:
        return values or None
    if len(settings) > 1:
        raise UsageError(
            f"{option} is given for all and for one more", f"give {option} once, or by name only"
        )
    return values[""]


def arguments(step: type[Step], *names: str) -> Callable[[F], F]:
    """Return an option for each of these arguments of a step, as its class declares them."""
    declared = step.arguments()
    return together(*(_option(declared[name]) for name in names))


def _option(argument: Field[Any]) -> Callable[[F], F]:
    declared, option = argument.metadata, f"--{argument.name}"
    kind = declared["kind"]
    shared: dict[str, Any] = {"help": declared["text"], "metavar": declared["metavar"] or None}
    if kind is NAMES or kind.each is not None:
        return click.option(option, multiple=True, **shared)
    shared["default"] = argument.default
    if kind is FLAG:
        pair = "" if argument.default is False else f"/--no-{argument.name}"
        return click.option(option + pair, is_flag=True, **shared)
    shown = argument.default is not None
    read: Any = Kernel() if kind is WINDOW else click.FLOAT
    if kind.known:
        read = click.Choice(kind.known)
    elif kind.least is not None:
        read = click.IntRange(kind.least, kind.most)
    return click.option(option, type=read, show_default=shown, **shared)


PATH = click.Path(path_type=Path)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
FOLD = click.option(
    "--fold", is_flag=True, help="First compute what the graph computes from weights alone."
)
FORCE = click.option("--force", is_flag=True, help="Replace what exists.")
RUNNING = together(
    click.option("--seeds", type=click.IntRange(1), default=3, show_default=True,
                 help="Number of random inputs."),
    click.option("--range", "ranges", metavar="[NAME=]LO:HI", multiple=True,
                 type=NamedValue(interval, "NAME=LO:HI or LO:HI"),
                 help="Range of the values of an input, or of all."),
    click.option("--size", "sizes", metavar="NAME=N[,N...]", multiple=True,
                 type=NamedValue(sizes, "NAME=1,3", named=True),
                 help="Sizes of a dynamic dimension."),
    click.option("--inputs", metavar="PATH", multiple=True, type=PATH,
                 help="Your own inputs: an .npz file, or a folder with input_0.pb."),
    click.option("--provider", metavar="NAME",
                 help="cpu, cuda, ...; CUDA where it works by default."),
    click.option("--sample", is_flag=True,
                 help="Take a quick look only: one input, its rounding noise measured once."),
)  # fmt: skip
# What every command that grows a model can be told of its result.
OUTCOME = together(
    click.option("-o", "--output", metavar="PATH", type=PATH,
                 help="The file to write.  [default: MODEL-grown.onnx beside it]"),
    FORCE,
    click.option("--shards", metavar="SIZE",
                 help="Write the weights into files of at most so much each, such as 5GB."),
    click.option("--dry-run", is_flag=True, help="Say what would change; write no model."),
    click.option("--no-verify", is_flag=True, help="Write without asking onnxruntime."),
    RUNNING,
    JSON,
)  # fmt: skip
