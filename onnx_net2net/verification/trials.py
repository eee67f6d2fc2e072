"""Which inputs to compare two models on: sizes and values that the first of them accepts.

>>> planner = Planner(session.run, specs, (first.graph, second.graph))
>>> [trial.label for trial, feeds, outputs in planner.seeded(seeds=3, sizes=None)]
['seed 0, batch=1', 'seed 1, batch=3', 'seed 2, batch=1']
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnx_net2net.errors import Net2NetError, UsageError
from onnx_net2net.verification.bounds import Use, input_uses, merged
from onnx_net2net.verification.feeds import (
    Feeds,
    Range,
    UserInputs,
    check_ranges,
    make_feeds,
    user_feeds,
)
from onnx_net2net.verification.interior import Interior
from onnx_net2net.verification.report import Trial
from onnx_net2net.verification.sizes import (
    InputSpec,
    Sizes,
    affordable,
    chosen,
    defaults,
    free_dimensions,
)

Outputs = dict[str, np.ndarray]
Planned = list[tuple[Trial, Feeds, Outputs]]


# With every dimension fixed, more samples mean more runs.
MOST_SEEDS = 16
# Sizes that are given up because a tensor inside is empty there.
MOST_HOLLOW = 40


class RunError(Net2NetError):
    """A model stopped while running on some inputs."""


class Planner:
    """Finds inputs that a model accepts, and runs it on them; ``run`` raises RunError if not.

    Whole numbers stay within the bounds that all of the ``graphs`` set; ``aliases`` gives the names
    that another graph than the first has for its inputs. ``nbytes`` is the size of the model; small
    ones see more samples, for a unit that no sample activates is not tested. Sizes at which a
    tensor of the ``interior`` is empty are a last resort.
    """

    def __init__(
        self,
        run: Callable[[Feeds], Outputs],
        specs: Sequence[InputSpec],
        graphs: Sequence[onnx.GraphProto],
        ranges: Mapping[str, Range] | Range | None = None,
        nbytes: int = 0,
        aliases: Mapping[str, str] | None = None,
        interior: Interior | None = None,
    ) -> None:
        check_ranges(specs, ranges)
        self.run = run
        self.specs = specs
        self.ranges = ranges
        self.interior = interior
        # A model this size is worth so many samples: runs of small ones cost nothing.
        self.samples = 64 if nbytes <= 4 << 20 else 16 if nbytes <= 64 << 20 else 3
        self.warnings: list[str] = []
        names = [{}, *[aliases or {}] * (len(graphs) - 1)]
        uses = list(zip(map(input_uses, graphs), names, strict=True))
        self.uses = {}
        for spec in specs:
            bounds = [by_name.get(own.get(spec.name, spec.name)) for by_name, own in uses]
            self.uses[spec.name] = merged([use for use in bounds if use] or [Use("value")])

    def planned(
        self,
        inputs: UserInputs | Sequence[UserInputs] | None,
        seeds: int,
        sizes: Mapping[str, int | Sequence[int]] | None,
        *,
        sample: bool = False,
    ) -> Planned:
        """Run the first model on the user's inputs or on random ones, on one for a ``sample``."""
        if seeds < 1:
            raise UsageError(f"seeds must be 1 or more, not {seeds}")
        if inputs is not None:
            return self.user(inputs)
        if sample:
            return self._first_accepted(0, next(iter(chosen(self.specs, sizes or {}))), [], 0)
        return self.seeded(seeds, sizes)

    def user(self, inputs: UserInputs | Sequence[UserInputs]) -> Planned:
        """Run the first model on the user's inputs."""
        planned: Planned = []
        for label, feeds in user_feeds(inputs, self.specs):
            try:
                planned.append((Trial(label), feeds, self.run(feeds)))
            except RunError as error:
                raise UsageError(f"{label}: the first model fails: {error.problem}") from error
        return planned

    def seeded(self, seeds: int, sizes: Mapping[str, int | Sequence[int]] | None) -> Planned:
        """Run the first model on inputs made from seeds, at sizes that it accepts."""
        planned: Planned = []
        for wanted in chosen(self.specs, sizes or {}):
            turns = 2 if free_dimensions(self.specs).keys() - wanted.keys() else 1
            for turn in range(turns):
                used = [trial.sizes for trial, _, _ in planned]
                planned += self._first_accepted(turn, wanted, used, len(planned))
        accepted = [trial.sizes for trial, _, _ in planned]
        if not free_dimensions(self.specs) and seeds > 1 and self.samples > 3:
            seeds = max(seeds, affordable(self.specs, {}, min(self.samples, MOST_SEEDS)))
        for seed in range(len(planned), seeds):
            try:
                planned.append(self._run(accepted[seed % len(accepted)], seed))
            except RunError as error:
                self.warnings.append(f"the first model fails on seed {seed}: {error.problem}")
        return planned

    def _first_accepted(
        self, turn: int, wanted: Sizes, used: Sequence[Sizes], seed: int
    ) -> Planned:
        """Run with the first sizes that the model accepts and that were not used before."""
        first_error: RunError | None = None
        hollow: list[tuple[str, Sizes]] = []
        for preferred in defaults(self.specs, turn, self.samples):
            sizes = {**preferred, **wanted}
            if sizes in used:
                continue
            empty = self.interior and len(hollow) < MOST_HOLLOW and self.interior.empty(sizes)
            if empty:
                hollow.append((empty, sizes))
                continue
            try:
                return [self._run(sizes, seed)]
            except RunError as error:
                first_error = first_error or error
        for name, sizes in hollow:
            try:
                run = self._run(sizes, seed)
            except RunError as error:
                first_error = first_error or error
                continue
            self.warnings.append(f"tensor {name!r} is empty at the sizes that were tried")
            return [run]
        if any(wanted.items() <= sizes.items() for sizes in used):
            self.warnings.append(f"the first model accepts only some sizes; used: {used}")
            return []
        tried = f" with {wanted}" if wanted else ""
        raise UsageError(
            f"the first model runs on no inputs that were tried{tried}: "
            f"{first_error.problem if first_error else 'no sizes'}",
            "give sizes of its dynamic dimensions, ranges, or inputs of your own",
        )

    def _run(self, sizes: Sizes, seed: int) -> tuple[Trial, Feeds, Outputs]:
        feeds = make_feeds(self.specs, self.uses, sizes, seed, self.ranges)
        label = ", ".join([f"seed {seed}", *(f"{name}={size}" for name, size in sizes.items())])
        return Trial(label, seed, dict(sizes)), feeds, self.run(feeds)


def flattened(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield an output as arrays: sequences and the maps of classifiers have parts."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        keys = list(value[0])
        yield f"{name}.keys", np.array(keys)
        yield name, np.array([[one.get(key, np.nan) for key in keys] for one in value])
    elif isinstance(value, list):
        yield f"{name}.length", np.array(len(value))
        for index, one in enumerate(value):
            yield from flattened(f"{name}[{index}]", one)
    elif isinstance(value, dict):
        yield from flattened(name, [value])
    else:
        yield name, np.zeros(0) if value is None else np.asarray(value)


def first_line(error: BaseException) -> str:
    """Return the first line of an onnxruntime error, without its prefix."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    return line if len(line) <= 400 else line[:400] + " ..."
