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

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.model.model import AnyModel, load
from onnx_net2net.progress import work
from onnx_net2net.verification.candidate import Candidate
from onnx_net2net.verification.engine import VERSION
from onnx_net2net.verification.feeds import Range, UserInputs
from onnx_net2net.verification.pair import Sampling, compare_pair, compare_recorded
from onnx_net2net.verification.precision import with_outputs
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.sessions import choose_provider
from onnx_net2net.verification.terms import PerOutput, stated
from onnx_net2net.verification.trials import Outputs

__all__ = ["VERSION", "Candidate", "candidate", "choose_provider", "run", "tensors", "verify"]

ONE_OF = "a model is compared with a second one, or against outputs that were recorded"


def verify(
    a: AnyModel,
    b: AnyModel | None = None,
    *,
    against: UserInputs | None = None,
    seeds: int = 3,
    inputs: UserInputs | Sequence[UserInputs] | None = None,
    provider: str | None = None,
    rtol: PerOutput = None,
    atol: PerOutput = None,
    sizes: Mapping[str, int | Sequence[int]] | None = None,
    ranges: Mapping[str, Range] | Range | None = None,
    precision: str | None = None,
    require: str | Sequence[str] = (),
    require_only: bool = False,
    names: Mapping[str, str] | None = None,
    by_position: bool = False,
    sample: bool = False,
) -> Report:
    """Compare two models on the same inputs.

    >>> verify("a.onnx", "b.onnx", sizes={"batch": [1, 3]}, ranges={"x": (0, 1)}).equivalent
    True

    ``inputs`` are the user's own in place of random ones: an ``.npz`` file, a mapping of arrays, an
    ONNX test folder, or several of these. ``against`` are outputs recorded on these inputs, in
    place of ``b``: a file of :meth:`Report.save_outputs`, or a mapping. ``provider`` is ``cpu``,
    ``cuda`` or a name of onnxruntime's; by default CUDA where it works. ``sizes`` gives sizes of
    dynamic dimensions by name. ``names`` gives the inputs and outputs of ``b`` by those of ``a``;
    ``by_position`` matches them by position. Small models are run on more samples than ``seeds``
    says. ``sample`` takes a quick look: one random input, or the user's, its noise measured once.

    ``rtol`` and ``atol`` are a number or one by output name. One of them alone allows
    ``rtol * |expected|`` or ``atol`` where that is more than the measured rounding noise; both
    together replace it by ``atol + rtol * |expected|``, as in ``numpy.allclose``. ``precision`` is
    ``fp16`` where ``b`` may differ by what a copy of ``a`` in that does. ``require`` is what must
    hold besides, in every trial: ``cosine>=0.999``, or ``logits=max<=1e-3`` of one output
    (``verification.statistics`` has the measures). It replaces the noise with ``require_only``.

    Raises InvalidModel for a model that onnxruntime cannot load, UsageError for inputs, sizes or
    ranges that do not fit, or where the first model runs with no size that was tried.
    """
    terms = stated(rtol, atol, require, require_only, precision)
    sampling = Sampling(seeds, inputs, sizes, ranges, sample)
    started = time.monotonic()
    with work("verifying") as running:
        running_on = choose_provider(provider), terms, sampling, running
        if b is not None and against is None:
            report = compare_pair(a, b, *running_on, by_position=by_position, names=names)
        elif b is None and against is not None and not (by_position or names):
            report = compare_recorded(a, against, *running_on)
        else:
            raise UsageError(ONE_OF, "give a second model, or what was recorded by its own names")
    report.seconds = time.monotonic() - started
    return report


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
    return candidate(model, provider).compute(dict(feeds), outputs, optimised=optimised)


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

    def computed(names: Sequence[str]) -> Outputs:
        """Compute these tensors; what cannot be an output is cut out by halves."""
        try:
            return run(with_outputs(source, names), feeds, names, provider, optimised=optimised)
        except InvalidModel:
            if not names:
                raise
        middle = len(names) // 2
        return {} if not middle else computed(names[:middle]) | computed(names[middle:])

    values = computed(order)
    return {name: values[name] for name in order if name in values}


def candidate(model: AnyModel, provider: str | None) -> Candidate:
    """Put a model under test."""
    return Candidate("given", model, choose_provider(provider))
