"""Do two models compute the same? onnxruntime is the judge, and this the only place that asks it.

>>> report = verify("small.onnx", "wide.onnx")
>>> bool(report), report.verdict
(True, 'equivalent')

Nothing here knows how the second model was made. Both models are run unoptimised and optimised, on
the same inputs: several seeds, several sizes of each dynamic dimension, or the user's own. The
tolerance is counted in the rounding noise of the models themselves; the formula stands in
:mod:`onnx_net2net.judge.comparison`. ``ONNX_NET2NET_THREADS`` or ``OMP_NUM_THREADS`` set the number
of threads.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import TensorProto

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.judge.feeds import Feeds, Range, UserInputs
from onnx_net2net.judge.interface import merged_specs, output_problems
from onnx_net2net.judge.judgement import How, Outputs, PerOutput, compare_models
from onnx_net2net.judge.precision import (
    has_bfloat16,
    in_precision,
    nudged,
    takes_bfloat16,
    with_outputs,
)
from onnx_net2net.judge.report import Report
from onnx_net2net.judge.sessions import ERRORS, is_odd, open_session
from onnx_net2net.judge.sizes import input_specs
from onnx_net2net.judge.trials import Planner, RunError, first_line, flattened
from onnx_net2net.model import Model, load

__all__ = ["VERSION", "Candidate", "candidate", "choose_provider", "run", "tensors", "verify"]

VERSION = ort.__version__
AnyModel = Model | str | os.PathLike | onnx.ModelProto | bytes

_MESSAGE_LIMIT = (2 << 30) - (1 << 20)  # what one protobuf message can hold
# Bytes of weights up to which copies are made, in memory, to measure rounding noise.
_LIMITS = {"moved": _MESSAGE_LIMIT, "double": 256 << 20}


_NO_DOUBLE_ON_CPU = {"Conv", "ConvTranspose", "LSTM", "GRU", "RNN"}

_FAILURES: tuple[type[Exception], ...] = (*ERRORS, RunError)


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
) -> Report:
    """Compare two models on the same inputs.

    >>> verify("a.onnx", "b.onnx", sizes={"batch": [1, 3]}, ranges={"x": (0, 1)}).equivalent
    True

    ``inputs`` are the user's own in place of random ones: an ``.npz`` file, a mapping of arrays, an
    ONNX test folder, or several of these. ``provider`` is ``cpu``, ``cuda`` or a name of
    onnxruntime's; by default CUDA where it works. ``rtol`` and ``atol``, a number or one by output
    name, replace the measured tolerance. ``sizes`` gives sizes of dynamic dimensions by name.

    Small models are run on more samples than ``seeds`` says: in a larger batch, or more seeds.

    Raises InvalidModel for a model that onnxruntime cannot load, UsageError for inputs, sizes or
    ranges that do not fit, or where the first model runs with no size that was tried.
    """
    started = time.monotonic()
    if seeds < 1:
        raise UsageError(f"seeds must be 1 or more, not {seeds}")
    report = Report(onnxruntime=VERSION)
    with tempfile.TemporaryDirectory(prefix="onnx-net2net-") as scratch:
        name = choose_provider(provider)
        first = Candidate("first", a, name, Path(scratch))
        second = Candidate("second", b, name, Path(scratch))
        specs, problems, report.warnings = merged_specs(first.specs, second.specs)
        report.problems = problems + output_problems(first.graph, second.graph)
        _open(first, second, report)
        if first.lowered:
            specs = [spec.lowered() for spec in specs]
        if not problems:
            graphs = (first.graph, second.graph)
            planner = Planner(first.run, specs, graphs, ranges, first.nbytes)
            planned = planner.user(inputs) if inputs is not None else planner.seeded(seeds, sizes)
            report.warnings += planner.warnings
            compare_models(first, second, planned, report, (rtol, atol))
    report.seconds = time.monotonic() - started
    return report


# Sessions ------------------------------------------------------------------------------------


def choose_provider(name: str | None) -> str:
    """onnxruntime's name of the wanted execution provider; UsageError if it does not work here.

    >>> choose_provider("cpu")
    'CPUExecutionProvider'
    """
    available = ort.get_available_providers()
    if name is None:
        cuda = "CUDAExecutionProvider"
        return cuda if cuda in available and _works(cuda) else "CPUExecutionProvider"
    wanted = name.lower().removesuffix("executionprovider")
    for candidate in available:
        if candidate.lower().removesuffix("executionprovider") == wanted:
            if _works(candidate):
                return candidate
            raise UsageError(
                f"onnxruntime has {candidate}, but it does not work on this machine",
                "check driver and libraries, or use --provider cpu",
            )
    raise UsageError(f"onnxruntime has no provider {name!r}", f"it has: {', '.join(available)}")


@functools.cache
def _works(provider: str) -> bool:
    """Whether a session really runs there: onnxruntime falls back to the CPU without an error."""
    if provider == "CPUExecutionProvider":
        return True
    text = '<ir_version: 8, opset_import: ["": 13]> probe (float[1] x) => (float[1] y) {y = Neg(x)}'
    model = onnx.parser.parse_model(text)
    ort.set_default_logger_severity(4)  # a missing driver is an answer here, not an error
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            if provider.startswith("CUDA") and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()
        session = _Session(model.SerializeToString(), provider, optimised=True)
        session.run({"x": np.ones(1, np.float32)})
        return session.provider == provider
    except _FAILURES:
        return False
    finally:
        ort.set_default_logger_severity(2)


class _Session:
    """One onnxruntime session: ``run(feeds)`` gives the outputs by name."""

    def __init__(
        self, source: str | bytes, provider: str, *, optimised: bool, isolated: bool = False
    ) -> None:
        self._session = open_session(source, provider, optimised=optimised, isolated=isolated)
        self.provider = self._session.provider
        self._inputs = set(self._session.inputs)

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> Outputs:
        wanted = list(names) if names is not None else self._session.outputs
        used = {
            # A model lowered from bfloat16 is still fed what its inputs were.
            name: value.astype(np.float32) if value.dtype == ml_dtypes.bfloat16 else value
            for name, value in feeds.items()
            if name in self._inputs
        }
        try:
            values = self._session.run(wanted, used)
        except ERRORS as error:
            raise RunError(first_line(error)) from error
        flat: Outputs = {}
        for name, value in zip(wanted, values, strict=True):
            flat.update(flattened(name, value))
        return flat


# The two models ------------------------------------------------------------------------------


class Candidate:
    """A model under test, and the sessions that can be made of it and its copies."""

    def __init__(self, label: str, model: AnyModel, provider: str, scratch: Path) -> None:
        self.label = label
        self.model = model if isinstance(model, Model) else load(model)
        self.graph = self.model.proto.graph
        self.specs = input_specs(self.graph)
        self.nbytes = sum(weight.nbytes for weight in self.model.weights.values())
        self.provider = provider
        self.lowered = False  # bfloat16 is computed in float32
        self.optimised_only: str | None = None
        self._base: _Session | None = None
        self._scratch = scratch

    @property
    def both(self) -> bool:
        return self.optimised_only is None

    @property
    def running_on(self) -> str:
        """The provider of the session that runs."""
        return self._opened().provider

    def run(self, feeds: Feeds) -> Outputs:
        return self._opened().run(feeds)

    def rerun(self, feeds: Sequence[Feeds], how: How = "again") -> list[Outputs] | None:
        if self.nbytes > _LIMITS.get(how, self.nbytes) or (how == "double" and self._single_only):
            return None
        try:
            session = self._opened() if how == "again" else self.session(how)
            return [session.run(inputs) for inputs in feeds]
        except _FAILURES:
            return None

    @property
    def _single_only(self) -> bool:
        """Whether a float64 copy is sure to be rejected, which would take a while to find out."""
        on_cpu = self.provider == "CPUExecutionProvider"
        return on_cpu and any(node.op_type in _NO_DOUBLE_ON_CPU for node in self.graph.node)

    def session(self, how: How = "again") -> _Session:
        """A new session, of a copy for ``moved`` and ``double``; raises what onnxruntime raises."""
        optimised = how == "optimised"
        model = nudged(self.model) if how == "moved" else self.model
        if how != "double" and not self.lowered:
            contents = self._contents if model is self.model else model.to_bytes()
            return _Session(contents, self.provider, optimised=optimised, isolated=self._odd)
        proto = onnx.ModelProto.FromString(model.to_bytes())
        if how == "double":
            proto = in_precision(proto, TensorProto.DOUBLE)
        else:
            proto = in_precision(proto, TensorProto.FLOAT, frozenset({TensorProto.BFLOAT16}))
        contents = proto.SerializeToString()
        return _Session(contents, self.provider, optimised=optimised, isolated=self._odd)

    def release(self) -> None:
        self._base = None

    @functools.cached_property
    def _odd(self) -> bool:
        return is_odd(self.model) is not None

    @functools.cached_property
    def _contents(self) -> str | bytes:
        """What to give to onnxruntime: the file if it can be named, which may be of any size."""
        path = str(self.model.path or "")
        if path and path == path.encode(errors="ignore").decode():
            return path
        if self.nbytes > _MESSAGE_LIMIT:
            target = self._scratch / self.label / "model.onnx"
            target.parent.mkdir()
            return str(self.model.save(target, external=True))
        return self.model.to_bytes()

    def _opened(self) -> _Session:
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
    """The outputs of a model by name, all of them or those asked for.

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
    """Intermediate tensors of the main graph by name, in the order of the graph; None asks for all.

    >>> tensors("model.onnx", ["conv1_output"], feeds)["conv1_output"].shape
    (1, 64, 112, 112)

    Tensors that onnxruntime cannot hand out are left out. UsageError for a name no node writes.
    """
    source = model if isinstance(model, Model) else load(model)
    written = [name for node in source.proto.graph.node for name in node.output if name]
    wanted = set(written if names is None else names)
    unknown = wanted.difference(written)
    if unknown:
        raise UsageError(f"no node of the main graph writes {', '.join(sorted(unknown))}")
    order = [name for name in written if name in wanted]
    found: Outputs = {}
    for group, session in _exposed(source, order, provider, optimised):
        found.update(session.run(feeds, group))
    return {name: found[name] for name in order if name in found}


def _exposed(
    model: Model, names: Sequence[str], provider: str | None, optimised: bool
) -> Iterator[tuple[Sequence[str], _Session]]:
    """Sessions that together give these tensors; what cannot be an output is cut out by halves."""
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
    """A model under test, for as long as it is."""
    with tempfile.TemporaryDirectory(prefix="onnx-net2net-") as scratch:
        yield Candidate("given", model, choose_provider(provider), Path(scratch))


def _session_of(candidate: Candidate, optimised: bool) -> _Session:
    """A session of one model, in float32 if onnxruntime cannot run its bfloat16."""
    candidate.lowered = candidate.lowered or takes_bfloat16(candidate.graph)
    try:
        return candidate.session("optimised" if optimised else "again")
    except ERRORS as error:
        if candidate.lowered or not has_bfloat16(candidate.model):
            raise InvalidModel(f"onnxruntime cannot load the model: {first_line(error)}") from error
    candidate.lowered = True
    return _session_of(candidate, optimised)
