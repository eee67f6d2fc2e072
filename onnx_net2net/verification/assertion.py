"""An assertion for tests of any kind: two models compute the same.

>>> assert_equivalent("a.onnx", "b.onnx", require="cosine>=0.999")

Where they do not, the message names the output, its worst element with both values and what was
allowed, and the first node at which the models part, if there is one.
"""

from __future__ import annotations

import contextlib
from typing import Any

from onnx_net2net.errors import Net2NetError
from onnx_net2net.model.model import AnyModel
from onnx_net2net.verification.divergence import Divergence, locate
from onnx_net2net.verification.formats import printable
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.verify import verify

__all__ = ["NotEquivalent", "assert_equivalent"]


class NotEquivalent(AssertionError):
    """Two models do not compute the same.

    ``report`` is that of :func:`verify`, ``divergence`` where the models part, or None.
    """

    def __init__(self, report: Report, divergence: Divergence | None = None) -> None:
        self.report, self.divergence = report, divergence
        lines = [report.verdict]
        lines += [f"  also: {o.name}: {o.problem}" for o in report.outputs if not o][1:]
        for output in report.outputs:
            if not output and output.statistics is not None:
                measures = vars(output.statistics).items()
                known = [f"{name} {value:.6g}" for name, value in measures if value is not None]
                lines.append(f"  {output.name}: {', '.join(known)}")
        lines += [f"  {divergence}"] if divergence is not None else []
        super().__init__(printable("\n".join(lines)))


def assert_equivalent(a: AnyModel, b: AnyModel | None = None, **options: Any) -> Report:
    """Raise :class:`NotEquivalent` unless two models compute the same; return the report.

    >>> assert_equivalent("a.onnx", "b.onnx", sizes={"batch": [1, 3]})
    >>> assert_equivalent("a.onnx", against="outputs.npz", inputs="inputs.npz")

    The ``options`` are those of :func:`verify`, which says what is allowed.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    report = verify(a, b, **options)
    if report:
        return report
    divergence = None
    if b is not None:
        how = {n: options[n] for n in ("provider", "by_position", "names") if n in options}
        with contextlib.suppress(Net2NetError):  # the models differ, wherever that begins
            divergence = locate(a, b, report, **how)
    raise NotEquivalent(report, divergence)
