"""Do two models compute the same? onnxruntime is the judge.

>>> report = verify("small.onnx", "wide.onnx")
>>> bool(report), report.verdict
(True, 'equivalent')

Nothing here knows how the second model was made. Both models are run unoptimised and optimised, on
the same inputs: several seeds, several sizes of each dynamic dimension, or the user's own. The
tolerance is counted in the rounding noise of the models themselves; the formula stands in
:mod:`onnx_net2net.verification.comparison`. ``ONNX_NET2NET_THREADS`` or ``OMP_NUM_THREADS`` set
the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.model.drafts import draft_folder
from onnx_net2net.model.isolation import Isolated
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.model.validation import check_operands
from onnx_net2net.progress import work
from onnx_net2net.verification.comparison import is_float
from onnx_net2net.verification.contents import MESSAGE_LIMIT, check_files, contents
from onnx_net2net.verification.engine import ERRORS, VERSION, process_of
from onnx_net2net.verification.feeds import Feeds, Range, UserInputs
from onnx_net2net.verification.interface import Matched, compare_outputs, matched
from onnx_net2net.verification.interior import Interior
from onnx_net2net.verification.judgement import RUNS, How, Own, PerOutput, compare_models, own_of
from onnx_net2net.verification.kernels import blurred
from onnx_net2net.verification.precision import (
    has_bfloat16,
    in_precision,
    is_single,
    nudged,
    takes_bfloat16,
    with_outputs,
)
from onnx_net2net.verification.recurrence import is_recurrent
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.sessions import (
    FAILURES,
    Session,
    choose_provider,
    kernels,
    lacks_double,
)
from onnx_net2net.verification.sizes import InputSpec, input_specs
from onnx_net2net.verification.trials import Outputs, Planner, first_line

__all__ = ["VERSION", "Candidate", "candidate", "choose_provider", "run", "tensors", "verify"]

# Bytes of weights up to which copies are made, in memory, to measure rounding noise.
_LIMITS = {"up": MESSAGE_LIMIT, "down": MESSAGE_LIMIT, "double": 256 << 20}


def verify(
    a: AnyModel,
    b: AnyModel,
    *,
    seeds: int = 3,
    inputs: UserInputs | Sequence[UserInputs] | None = None,
    provider: str | None = None,
    rtol: PerOutput = None,
    atol: PerOutput = None,
    sizes: Mapping[str, int | Sequence[int]] | None = None,
    ranges: Mapping[str, Range] | Range | None = None,
    by_position: bool = False,
) -> Report:
    """Compare two models on the same inputs.

    >>> verify("a.onnx", "b.onnx", sizes={"batch": [1, 3]}, ranges={"x": (0, 1)}).equivalent
    True

    ``inputs`` are the user's own in place of random ones: an ``.npz`` file, a mapping of arrays, an
    ONNX test folder, or several of these. ``provider`` is ``cpu``, ``cuda`` or a name of
    onnxruntime's; by default CUDA where it works. ``sizes`` gives sizes of dynamic dimensions by
    name. ``by_position`` matches inputs and outputs by their positions, whatever their names.
    Small models are run on more samples than ``seeds`` says: in a larger batch, or more seeds.

    ``rtol`` and ``atol`` are a number or one by output name. One of them alone allows
    ``rtol * |expected|`` or ``atol`` where that is more than the measured rounding noise, so it
    never makes the comparison stricter. Both together replace the measured tolerance by
    ``atol + rtol * |expected|``, as in ``numpy.allclose``.

    Raises InvalidModel for a model that onnxruntime cannot load, UsageError for inputs, sizes or
    ranges that do not fit, or where the first model runs with no size that was tried.
    """
    started = time.monotonic()
    if seeds < 1:
        raise UsageError(f"seeds must be 1 or more, not {seeds}")
    report, own = Report(onnxruntime=VERSION), (rtol, atol)
    with draft_folder(Path(tempfile.gettempdir())) as scratch, work("verifying") as running:
        name = choose_provider(provider)
        first = Candidate("first", a, name, scratch, running.advance)
        second = Candidate("second", b, name, scratch, running.advance)
        interface = matched(first.graph, second.graph, by_position=by_position)
        runnable = not interface.problems
        _fit(first, second, interface, own)
        report.take(interface)
        _open(first, second, report)
        if runnable:
            planner = _planner(first, second, interface, ranges)
            planned = planner.user(inputs) if inputs is not None else planner.seeded(seeds, sizes)
            report.warnings += planner.warnings
            running.total = RUNS * len(planned)
            compare_models(first, second, planned, report, own)
        check_files(a, first.model)
        check_files(b, second.model)
    report.seconds = time.monotonic() - started
    return report


# The two models ------------------------------------------------------------------------------


class Candidate:
    """A model under test, and the sessions that can be made of it and its copies."""

    def __init__(
        self,
        label: str,
        model: AnyModel,
        provider: str,
        scratch: Path,
        ran: Callable[[], object] = lambda: None,
    ) -> None:
        self.label = label
        self._ran = ran  # is called for each run
        self.model = load(model)
        self._as_file = not isinstance(model, Model)
        self.graph = self.model.proto.graph
        check_operands(self.model.proto)
        self.specs = input_specs(self.graph)
        self.nbytes = sum(weight.nbytes for weight in self.model.weights.values())
        self.provider = provider
        self.lowered = False  # bfloat16 is computed in float32
        self.optimised_only: str | None = None
        self._base: Session | None = None
        self._scratch = scratch
        self._inputs: Mapping[str, str] = {}
        self._outputs: Mapping[str, str] = {}
        self._types: dict[str, np.dtype] = {}
        self._lacking: dict[tuple[Any, ...], bool] = {}

    def fit(
        self,
        specs: Sequence[InputSpec],
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> None:
        """Take inputs as ``specs`` has them, of other types and by other names.

        ``inputs`` gives its own names by those, ``outputs`` the other names by its own.
        """
        self._inputs, self._outputs = inputs or {}, outputs or {}
        own = {spec.name: spec.dtype for spec in self.specs}
        cast = [spec.name for spec in specs if spec.also is not None]
        self._types = {name: own[self._inputs.get(name, name)] for name in cast}

    def _run(self, session: Session, feeds: Feeds, *, double: bool = False) -> Outputs:
        given = {}
        for name, value in feeds.items():
            own = np.dtype(np.float64) if double and is_float(value.dtype) else value.dtype
            kind = own if double else self._types.get(name, own)
            given[self._inputs.get(name, name)] = value.astype(kind, copy=False)
        self._ran()
        return session.run(given, aliases=self._outputs)

    @property
    def both(self) -> bool:
        return self.optimised_only is None

    @property
    def running_on(self) -> str:
        """The provider of the session that runs."""
        return self._opened().provider

    def run(self, feeds: Feeds) -> Outputs:
        return self._run(self._opened(), feeds)

    def rerun(self, feeds: Sequence[Feeds], how: How = "again") -> list[Outputs] | None:
        if self.nbytes > _LIMITS.get(how, self.nbytes):
            return None
        if how == "double" and not any(map(is_recurrent, self.graph.node)):
            single_only = any(map(self._lacks_double, self.graph.node))
            if single_only:  # a copy would be rejected, or computed in float32 for the most part
                return None
        if how != "again":
            self._base = None  # one session at a time, also where a process runs it
        # The best first: kernels can be made inexact only where all is float32.
        for blur in (True, False) if how in ("up", "down") and is_single(self.model) else (False,):
            try:
                session = self._opened() if how == "again" else self.session(how, blur=blur)
                return [self._run(session, one, double=how == "double") for one in feeds]
            except FAILURES:
                continue
        return None

    @property
    def _single_only(self) -> bool:
        """Whether a float64 copy would be rejected, or computed in float32 for the most part."""
        nodes = self.graph.node
        return not any(map(is_recurrent, nodes)) and any(map(self._lacks_double, nodes))

    def _lacks_double(self, node: onnx.NodeProto) -> bool:
        key = node.domain, node.op_type, *map(bool, node.input), None, *map(bool, node.output)
        if key not in self._lacking:
            self._lacking[key] = lacks_double(node, self.model.opset, self.provider)
        return self._lacking[key]

    def session(self, how: How = "again", *, blur: bool = False) -> Session:
        """Open a session, of a copy for ``up``, ``down`` and ``double``.

        With ``blur`` its functions are as inexact as their kernels. Raises what onnxruntime raises.
        """
        optimised = how == "optimised"
        model = self.model
        if how in ("up", "down"):
            seed = int(how == "down")
            proto = blurred(model.proto, kernels(self.provider), seed) if blur else None
            model = nudged(model, sign=-1 if seed else 1, proto=proto)
        if how != "double" and not self.lowered:
            given: str | bytes
            if model is self.model:
                spare = self._scratch / self.label
                given = contents(model, as_file=self._as_file, spare=spare)
            else:
                given = model.to_bytes()
            return Session(given, self.provider, optimised=optimised, process=self._process)
        proto = onnx.ModelProto.FromString(model.to_bytes())
        if how == "double":
            proto = in_precision(proto, TensorProto.DOUBLE, lacking=self._lacks_double)
        else:
            proto = in_precision(proto, TensorProto.FLOAT, frozenset({TensorProto.BFLOAT16}))
        given = proto.SerializeToString()
        return Session(given, self.provider, optimised=optimised, process=self._process)

    @functools.cached_property
    def _process(self) -> Isolated | None:
        return process_of(self.model)

    def _opened(self) -> Session:
        if self._base is None:
            self.open()
        assert self._base is not None
        return self._base

    def open(self) -> None:
        """Open the unoptimised session, or the optimised one where only that loads."""
        try:
            self._base = self.session()
        except ERRORS as error:
            try:
                self._base = self.session("optimised")
            except ERRORS:
                where = f" ({self.model.path})" if self.model.path else ""
                raise InvalidModel(
                    f"onnxruntime cannot load the {self.label} model{where}: {first_line(error)}"
                ) from error
            self.optimised_only = first_line(error)


def _fit(first: Candidate, second: Candidate, interface: Matched, own: Own) -> None:
    """Compare the outputs' names and types, and let both models take what is to be fed."""
    cast = bool(interface.casts)
    compare_outputs(
        first.graph, second.graph, interface, lambda name: cast or own_of(own, name) is not None
    )
    first.fit(interface.specs)
    second.fit(interface.specs, interface.inputs, interface.outputs)


def _planner(
    first: Candidate,
    second: Candidate,
    interface: Matched,
    ranges: Mapping[str, Range] | Range | None,
) -> Planner:
    """Return what plans the trials: inputs that both models take."""
    specs = [spec.lowered() if first.lowered else spec for spec in interface.specs]
    graphs, interior = (first.graph, second.graph), Interior(first.model, specs)
    return Planner(first.run, specs, graphs, ranges, first.nbytes, interface.inputs, interior)


def _open(first: Candidate, second: Candidate, report: Report) -> None:
    """Open both models, in float32 if onnxruntime cannot run the bfloat16 of one of them."""
    pair = (first, second)
    for candidate in pair:
        try:
            if not takes_bfloat16(candidate.graph):
                candidate.open()
                continue
        except InvalidModel:
            if not has_bfloat16(candidate.model):
                raise
        first.lowered = second.lowered = True
    if first.lowered:
        report.precision = "float32"
        report.warnings.append(
            f"computed in float32: {first.provider} cannot run these models in bfloat16"
        )
        for candidate in pair:
            candidate.open()
    report.provider = first.running_on
    for candidate in pair:
        if candidate.optimised_only is not None:
            report.warnings.append(
                f"the {candidate.label} model loads only optimised: {candidate.optimised_only}"
            )


# Single runs ---------------------------------------------------------------------------------


def run(
    model: AnyModel,
    feeds: Mapping[str, np.ndarray],
    outputs: Sequence[str] | None = None,
    provider: str | None = None,
    *,
    optimised: bool = True,
) -> Outputs:
    """Return the outputs of a model by name, all of them or those asked for.

    >>> run("model.onnx", {"x": np.zeros((1, 3), np.float32)})["y"].shape
    (1, 10)
    """
    with candidate(model, provider) as subject:
        return _session_of(subject, optimised).run(feeds, outputs)


def tensors(
    model: AnyModel,
    names: Iterable[str] | None,
    feeds: Mapping[str, np.ndarray],
    *,
    provider: str | None = None,
    optimised: bool = False,
) -> Outputs:
    """Return tensors of the main graph by name, in its order; None asks for all.

    >>> tensors("model.onnx", ["conv1_output"], feeds)["conv1_output"].shape
    (1, 64, 112, 112)

    Tensors that onnxruntime cannot hand out are left out. UsageError for a name no node writes.
    """
    source = load(model)
    written = [name for node in source.proto.graph.node for name in node.output if name]
    wanted = set(written if names is None else names)
    unknown = wanted.difference(written)
    if unknown:
        raise UsageError(f"no node of the main graph writes {', '.join(sorted(unknown))}")
    order = [name for name in written if name in wanted]
    values: Outputs = {}
    for group, session in _exposed(source, order, provider, optimised):
        values.update(session.run(feeds, group))
    return {name: values[name] for name in order if name in values}


def _exposed(
    model: Model, names: Sequence[str], provider: str | None, optimised: bool
) -> Iterator[tuple[Sequence[str], Session]]:
    """Yield sessions with these tensors as outputs; what cannot be one is cut out by halves."""
    try:
        with candidate(with_outputs(model, names), provider) as subject:
            yield names, _session_of(subject, optimised)
    except InvalidModel:
        if not names:
            raise
        if len(names) > 1:
            middle = len(names) // 2
            yield from _exposed(model, names[:middle], provider, optimised)
            yield from _exposed(model, names[middle:], provider, optimised)


@contextlib.contextmanager
def candidate(model: AnyModel, provider: str | None) -> Iterator[Candidate]:
    """Put a model under test, for as long as it is."""
    with draft_folder(Path(tempfile.gettempdir())) as scratch:
        yield Candidate("given", model, choose_provider(provider), scratch)


def _session_of(candidate: Candidate, optimised: bool) -> Session:
    """Open a session of one model, in float32 if onnxruntime cannot run its bfloat16."""
    candidate.lowered = candidate.lowered or takes_bfloat16(candidate.graph)
    try:
        return candidate.session("optimised" if optimised else "again")
    except ERRORS as error:
        if candidate.lowered or not has_bfloat16(candidate.model):
            raise InvalidModel(f"onnxruntime cannot load the model: {first_line(error)}") from error
    candidate.lowered = True
    return _session_of(candidate, optimised)
