"""A model under test: how it is run, as it is and as copies whose rounding errors are others.

>>> subject = Candidate("first", "model.onnx", choose_provider("cpu"))
>>> subject.run({"x": x})["logits"]
>>> subject.rerun([{"x": x}], "double")                  # each trial in float64, or None

What is too large for one session runs in segments (:mod:`onnx_net2net.verification.segments`): all
trials pass one before the next is opened, and what crosses is handed over as onnxruntime has it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.model.validation import check_operands
from onnx_net2net.verification.comparison import is_float
from onnx_net2net.verification.contents import contents
from onnx_net2net.verification.engine import ERRORS, Value, array_of, process_of, value_of
from onnx_net2net.verification.feeds import Feeds
from onnx_net2net.verification.judgement import How
from onnx_net2net.verification.kernels import blurred
from onnx_net2net.verification.precision import (
    has_bfloat16,
    in_precision,
    is_single,
    nudged,
    takes_bfloat16,
)
from onnx_net2net.verification.recurrence import is_recurrent
from onnx_net2net.verification.segments import LIMITS, UNLIMITED, Limits, Segment, cut, part
from onnx_net2net.verification.sessions import FAILURES, Session, kernels, lacks
from onnx_net2net.verification.sizes import InputSpec, input_specs
from onnx_net2net.verification.trials import Outputs, RunError, first_line

__all__ = ["Candidate"]

T = TypeVar("T")
Values = dict[str, np.ndarray | Value]

# Bytes of crossing tensors that are compared, of each trial.
_COMPARED = 16 << 20


class _Bound(Exception):
    """A value cannot leave the session that made it."""


class Candidate:
    """A model under test, and the sessions that can be made of it and its copies.

    ``beside`` are names of tensors at which it had better be cut, those of another model; ``ran``
    is called after each run of a segment. Tensors that cross are given beside the outputs where
    ``compared`` names them.
    """

    def __init__(
        self,
        label: str,
        model: AnyModel,
        provider: str,
        ran: Callable[[], object] = lambda: None,
        beside: Collection[str] = frozenset(),
        limits: Limits | None = None,
    ) -> None:
        self.label = label
        self._ran = ran
        self.model = load(model)
        self._as_file = not isinstance(model, Model)
        self.graph = self.model.proto.graph
        check_operands(self.model.proto)
        self.specs = input_specs(self.graph)
        self.nbytes = sum(weight.nbytes for weight in self.model.weights.values())
        self.provider = self.running_on = provider
        self.lowered = False  # bfloat16 is computed in float32
        self.optimised_only: str | None = None
        self.compared: Collection[str] = ()
        self._process = process_of(self.model)
        # Through its process, only what NumPy has could cross.
        self._limits = (limits or LIMITS) if self._process is None else UNLIMITED
        self.segments = cut(self.model, self._limits, beside)
        self._kinds: dict[str, str] = {}  # types of what crosses, as onnxruntime has them
        self._kept: list[object] = []  # in whose memory crossing values may lie
        self._base: Session | None = None
        self._inputs: Mapping[str, str] = {}
        self._outputs: Mapping[str, str] = {}
        self._types: dict[str, np.dtype] = {}
        self._lacking: dict[tuple[object, ...], bool] = {}

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

    @property
    def both(self) -> bool:
        """Whether it loads unoptimised, too."""
        return self.optimised_only is None

    @property
    def whole(self) -> bool:
        """Whether it runs in one session."""
        return len(self.segments) == 1

    @property
    def crossing(self) -> set[str]:
        """The tensors that one segment hands over to others."""
        names = {name for segment in self.segments for name in segment.writes}
        return names - {value.name for value in self.graph.output}

    def open(self) -> None:
        """Open the unoptimised session, or the optimised one where only that loads.

        Of segments only that is known beforehand which is looked for here: whether there are
        kernels for bfloat16. Raises InvalidModel.
        """
        if self.whole:
            self._base = self._loaded(self.model)
            return
        unsure = not self.lowered and has_bfloat16(self.model)
        if unsure and any(self._lacks(TensorProto.BFLOAT16, node) for node in self.graph.node):
            raise InvalidModel(f"{self.provider} has no kernels for bfloat16")

    def compute(
        self, feeds: Feeds, names: Sequence[str] | None = None, *, optimised: bool = False
    ) -> Outputs:
        """Return its outputs, all or those asked for, in float32 where bfloat16 cannot be run.

        Raises InvalidModel where onnxruntime cannot load it, RunError where it stops.
        """
        self.lowered = self.lowered or takes_bfloat16(self.graph)
        how: How = "optimised" if optimised else "again"
        try:
            if not self.whole:
                self.open()
            if chained := None if self.whole else self._chained([feeds], how):
                outputs = chained[0][0]
                if unknown := set(names or ()).difference(outputs):
                    raise RunError(f"there is no output {', '.join(sorted(unknown))}")
                return outputs if names is None else {name: outputs[name] for name in names}
            return self._session(self.model, how).run(feeds, names)
        except InvalidModel as error:
            failure = error
        except ERRORS as error:
            problem = f"onnxruntime cannot load the model: {first_line(error)}"
            failure = InvalidModel(problem)
            failure.__cause__ = error
        if self.lowered or not has_bfloat16(self.model):
            raise failure
        self.lowered = True
        return self.compute(feeds, names, optimised=optimised)

    # What the judge asks for -------------------------------------------------------------------

    def run(self, feeds: Feeds) -> Outputs:
        """Run it once, as it is. Raises RunError if it stops."""
        return self._pass([feeds], "again")[0][0]

    def rerun(self, feeds: Sequence[Feeds], how: How = "again") -> list[Outputs] | None:
        """Run all trials another way; return None where that is impossible."""
        try:
            outputs, differently = self._pass(feeds, how)
        except FAILURES:
            return None
        return outputs if differently or how == "again" else None

    def _pass(self, feeds: Sequence[Feeds], how: How) -> tuple[list[Outputs], bool]:
        """Run all trials; also return whether any segment ran otherwise than as it is."""
        if how != "again":
            self._base = None  # one session at a time, also where a process runs it
        if chained := None if self.whole else self._chained(feeds, how):
            return chained

        def run(session: Session, double: bool) -> list[Outputs]:
            return [self._run(session, one, double) for one in feeds]

        outputs, way = self._attempt(0, how, run)
        return outputs, way != "again"

    def _run(self, session: Session, feeds: Feeds, double: bool) -> Outputs:
        outputs = session.run(self._given(feeds, double), aliases=self._outputs)
        self._ran()
        return outputs

    def _given(self, feeds: Feeds, double: bool = False) -> dict[str, np.ndarray]:
        """Return inputs by its own names, and of its own types."""
        given = {}
        for name, value in feeds.items():
            own = np.dtype(np.float64) if double and is_float(value.dtype) else value.dtype
            kind = own if double else self._types.get(name, own)
            given[self._inputs.get(name, name)] = value.astype(kind, copy=False)
        return given

    def _attempt(self, index: int, how: How, run: Callable[[Session, bool], T]) -> tuple[T, How]:
        """Call ``run`` with a session of a segment, the best first; return how it was made, too.

        ``run`` is told whether it computes in float64. Raises what the last one raised.
        """
        segment = self.segments[index]
        model = self.model if self.whole else part(self.model, segment, self._kinds)
        failure: Exception = RunError("there is no session of this kind")
        for way, blur in self._ways(segment, how):
            try:
                session = self._opened(model) if way == "again" else None
                session = session or self._session(model, way, blur=blur, seed=index)
                return run(session, way == "double"), way
            except FAILURES as error:
                failure = error.with_traceback(None)  # which would keep the session
        raise failure

    def _ways(self, segment: Segment, how: How) -> list[tuple[How, bool]]:
        """Return how to run a segment, the best first, and whether with kernels made inexact.

        That goes only where all is float32. What cannot be copied runs as it is, if others can.
        """
        ways: list[tuple[How, bool]] = [(how, False)]
        if how in ("up", "down") and self.model.derived(is_single):
            ways.insert(0, (how, True))
        single = how == "double" and not any(map(is_recurrent, segment.nodes))
        if single and any(self._lacks(TensorProto.DOUBLE, node) for node in segment.nodes):
            ways.clear()  # a copy would be rejected, or computed in float32 for the most part
        if how == "double" and segment.nbytes > LIMITS.nbytes:
            ways.clear()  # several copies of one weight that is too large for that
        complete = self.whole or how == "again" or (how == "optimised" and ways)
        return ways if complete else [*ways, ("again", False)]

    def _lacks(self, elem_type: int, node: onnx.NodeProto) -> bool:
        used = (*map(bool, node.input), None, *map(bool, node.output))
        key = elem_type, node.domain, node.op_type, used
        if key not in self._lacking:
            self._lacking[key] = lacks(elem_type, node, self.model.opset, self.provider)
        return self._lacking[key]

    # Segments ----------------------------------------------------------------------------------

    def _chained(self, feeds: Sequence[Feeds], how: How) -> tuple[list[Outputs], bool] | None:
        """Run all trials through one segment after the other, as :meth:`_pass` does.

        Returns None where a value shows that it cannot cross, or be handed out; from then on the
        model is whole.
        """
        trials: list[Values] = [dict(self._given(one)) for one in feeds]
        outputs: list[Outputs] = [{} for _ in feeds]
        differently = False
        try:
            for index, segment in enumerate(self.segments):

                def run(session: Session, double: bool) -> list[Values]:
                    return [self._handed_on(session, values, double) for values in trials]

                results, way = self._attempt(index, how, run)
                differently = differently or way != "again"
                for values, result, given in zip(trials, results, outputs, strict=True):
                    for name in segment.last:
                        values.pop(name, None)
                    values |= result
                    self._give(result, given)
        except _Bound:
            self.segments = cut(self.model, UNLIMITED)
            return None
        finally:
            self._kept.clear()
        order = [self._outputs.get(value.name, value.name) for value in self.graph.output]
        return [{name: one[name] for name in (*order, *one)} for one in outputs], differently

    def _handed_on(self, session: Session, values: Values, double: bool) -> Values:
        """Run a segment on what it reads, in the types that this session takes."""
        fed = {}
        for name, kind in session.inputs.items():
            if name not in values:
                raise RunError(f"input {name!r} is not given")
            fed[name] = _of_type(values[name], kind)
        results = session.run_values(fed)
        self._ran()
        if not all(value.has_value() for value in results.values()):
            raise _Bound  # an empty optional value
        if not double:
            self._kinds |= {name: value.data_type() for name, value in results.items()}
        # Copied as long as the session lives, for a result may be one of its weights or inputs.
        copies = {name: array_of(value) for name, value in results.items()}
        if any(copy is None for copy in copies.values()):
            self._kept.append((session, fed))
        return {n: results[n] if copy is None else copy for n, copy in copies.items()}

    def _give(self, results: Values, outputs: Outputs) -> None:
        """Add to the outputs what of a segment's results is one, or is compared beside them."""
        declared = {value.name for value in self.graph.output}
        for name, value in results.items():
            if isinstance(value, np.ndarray):
                float8 = value.dtype.isbuiltin != 1 and value.itemsize == 1
                if name in declared:  # float8 by its bits, as sessions hand it out
                    given = value.view(np.uint8) if float8 else value
                    outputs[self._outputs.get(name, name)] = given
                elif name in self.compared and value.nbytes <= _COMPARED:
                    outputs[name] = value
            elif name in declared:
                raise _Bound

    # Sessions ----------------------------------------------------------------------------------

    def _opened(self, model: Model) -> Session:
        """Return the session of a model as it is, which is kept where it is the whole one."""
        if not self.whole:
            return self._loaded(model)
        if self._base is None:
            self.open()
        assert self._base is not None
        return self._base

    def _loaded(self, model: Model) -> Session:
        """Open the unoptimised session, or the optimised one where only that loads."""
        try:
            session = self._session(model)
        except ERRORS as error:
            try:
                session = self._session(model, "optimised")
            except ERRORS:
                where = f" ({self.model.path})" if self.model.path else ""
                raise InvalidModel(
                    f"onnxruntime cannot load the {self.label} model{where}: {first_line(error)}"
                ) from error
            self.optimised_only = first_line(error)
        self.running_on = session.provider
        return session

    def _session(
        self, model: Model, how: How = "again", *, blur: bool = False, seed: int = 0
    ) -> Session:
        """Open a session of a model, for ``up``, ``down`` and ``double`` of a copy of it.

        With ``blur`` its functions are as inexact as their kernels. Raises what onnxruntime raises.
        """
        as_file = self._as_file and model is self.model
        if how in ("up", "down"):
            sign = -1 if how == "down" else 1
            proto = None
            if blur:
                proto = blurred(model.proto, kernels(self.provider), 2 * seed + (sign < 0))
            model = nudged(model, sign=sign, proto=proto)
        if how == "double":
            lacking = functools.partial(self._lacks, TensorProto.DOUBLE)
            model = in_precision(model, TensorProto.DOUBLE, lacking=lacking)
        elif self.lowered:
            bfloat16 = frozenset({TensorProto.BFLOAT16})
            model = in_precision(model, TensorProto.FLOAT, bfloat16)
        return Session(
            contents(model, as_file=as_file and not self.lowered and how in ("again", "optimised")),
            self.provider,
            optimised=how == "optimised",
            process=self._process,
            lean=not self.whole,
        )


def _of_type(value: np.ndarray | Value, kind: str) -> Value:
    """Return a value for an input of this type: floats of another one are cast to it."""
    if not isinstance(value, np.ndarray):
        return value
    elem_type = TensorProto.DataType.Value(kind.removeprefix("tensor(").removesuffix(")").upper())
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    if value.dtype != dtype and not (is_float(value.dtype) and is_float(dtype)):
        raise RunError(f"an input of type {kind} is given as {value.dtype}")
    return value_of(value.astype(dtype, copy=False))
