"""The verdict on a draft: may a grown model that was just written take its place?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_net2net.errors import InvalidModel, Refused, UsageError
from onnx_net2net.model.model import Model
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.verify import verify


class Judge:
    """Asks onnxruntime whether a written draft computes what ``source`` does.

    ``exact=False`` is for growth with noise: the size of the difference is reported, and only a
    model that does not run, or whose outputs are of another kind, is turned down.
    """

    def __init__(self, source: Model, *, exact: bool, arguments: Mapping[str, Any]) -> None:
        self.source = source
        self.exact = exact
        self.arguments = arguments
        self.report: Report | None = None

    def __call__(self, draft: Path) -> bool:
        try:
            self.report = verify(self.source, draft, **self.arguments)
        except InvalidModel as error:
            self._blame(error)
            raise
        except UsageError as error:
            remedy = f"{error.remedy}; or write it unverified (--no-verify)"
            problem = f"the grown model cannot be verified: {error.problem}"
            raise UsageError(problem, remedy) from None
        self.report.problems += self.report.casts  # growing changes no types
        return self.report.equivalent if self.exact else _comparable(self.report)

    def _blame(self, error: InvalidModel) -> None:
        """Raise Refused if it is the draft that cannot be run: then the source runs by itself."""
        verify(self.source, self.source, **{**self.arguments, "seeds": 1})
        raise Refused(
            None,
            f"the grown model was not written, for {error.problem}",
            "this is a defect: please report it with the model",
        ) from error


def _comparable(report: Report) -> bool:
    ran = bool(report.outputs) and not report.problems
    return (
        ran
        and all(output.differences for output in report.outputs)
        and not any(
            difference.problem and difference.used <= 1  # its shape, its type, NaN
            for output in report.outputs
            for difference in output.differences
        )
    )
