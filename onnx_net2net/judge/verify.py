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
from types import ModuleType

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.files.drafts import draft_folder
from onnx_net2net.judge.contents import MESSAGE_LIMIT, check_files, contents
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
from onnx_net2net.judge.sizes import input_specs
from onnx_net2net.judge.trials import Planner, RunError, first_line, flattened
from onnx_net2net.model import AnyModel, Model, load

__all__ = ["VERSION", "Candidate", "candidate", "choose_provider", "run", "tensors", "verify"]

VERSION = ort.__version__

# Bytes of weights up to which copies are made, in memory, to measure rounding noise.
_LIMITS = {"moved": MESSAGE_LIMIT, "double": 256 << 20}


def _errors_of(module: ModuleType) -> Iterator[type[Exception]]:
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Exception):
            yield value


_NO_DOUBLE_ON_CPU = {"Conv", "ConvTranspose", "LSTM", "GRU", "RNN"}

# What onnxruntime raises: classes of its own, and Python's for arguments it cannot convert.
_ERRORS: tuple[type[Exception], ...] = (
    *_errors_of(ort_state),
    RuntimeError,
    ValueError,
)
_FAILURES: tuple[type[Exception], ...] = (*_ERRORS, RunError)


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
    with draft_folder(Path(tempfile.gettempdir())) as scratch:
        name = choose_provider(provider)
        first = Candidate("first", a, name, scratch)
        second = Candidate("second", b, name, scratch)
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
        check_files(a, first.model)
        check_files(b, second.model)
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

    def __init__(self, source: str | bytes, provider: str, *, optimised: bool) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = (
            level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
        )
        threads = os.environ.get("ONNX_NET2NET_THREADS") or os.environ.get("OMP_NUM_THREADS", "")
        if threads.isdigit():
            options.intra_op_num_threads = int(threads)
        # TF32 keeps 10 bits of the mantissa, which would hide most differences.
        settings = {"use_tf32": "0"} if provider.startswith("CUDA") else {}
        providers = [(provider, settings), ("CPUExecutionProvider", {})]
        self._session = ort.InferenceSession(
            source, options, providers=providers[: 1 + (provider != "CPUExecutionProvider")]
        )
        self.provider = self._session.get_providers()[0]
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> Outputs:
        wanted = list(names) if names is not None else self._outputs
        used = {
            # A model lowered from bfloat16 is still fed what its inputs were.
            name: value.astype(np.float32) if value.dtype == ml_dtypes.bfloat16 else value
            for name, value in feeds.items()
            if name in self._inputs
        }
        try:
            values = self._session.run(wanted, used)
        except _ERRORS as error:
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
        self.model = load(model)
        self._as_file = not isinstance(model, Model)
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
            given = self._contents if model is self.model else model.to_bytes()
            return _Session(given, self.provider, optimised=optimised)
        proto = onnx.ModelProto.FromString(model.to_bytes())
        if how == "double":
            proto = in_precision(proto, TensorProto.DOUBLE)
        else:
            proto = in_precision(proto, TensorProto.FLOAT, frozenset({TensorProto.BFLOAT16}))
        return _Session(proto.SerializeToString(), self.provider, optimised=optimised)

    def release(self) -> None:
        self._base = None

    @property
    def _contents(self) -> str | bytes:
        """What to give to onnxruntime."""
        return contents(self.model, as_file=self._as_file, spare=self._scratch / self.label)

    def _opened(self) -> _Session:
        if self._base is None:
            self.open()
        assert self._base is not None
        return self._base

    def open(self) -> None:
        """Open the unoptimised session, or the optimised one where only that loads."""
        try:
            self._base = self.session()
        except _ERRORS as error:
            try:
                self._base = self.session("optimised")
            except _ERRORS:
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
    source = load(model)
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
    with draft_folder(Path(tempfile.gettempdir())) as scratch:
        yield Candidate("given", model, choose_provider(provider), scratch)


def _session_of(candidate: Candidate, optimised: bool) -> _Session:
    """A session of one model, in float32 if onnxruntime cannot run its bfloat16."""
    candidate.lowered = candidate.lowered or takes_bfloat16(candidate.graph)
    try:
        return candidate.session("optimised" if optimised else "again")
    except _ERRORS as error:
        if candidate.lowered or not has_bfloat16(candidate.model):
            raise InvalidModel(f"onnxruntime cannot load the model: {first_line(error)}") from error
    candidate.lowered = True
    return _session_of(candidate, optimised)
