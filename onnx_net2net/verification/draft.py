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
        """Compare the draft with the source; return whether it may take its place."""
        try:
            self.report = verify(self.source, draft, **self.arguments)
        except InvalidModel as error:
            verify(self.source, self.source, **{**self.arguments, "seeds": 1})
            # The source runs by itself, so it is the draft that cannot be run.
            raise Refused(
                None,
                f"the grown model was not written, for {error.problem}",
                "this is a defect: please report it with the model",
            ) from error
        except UsageError as error:
            remedy = f"{error.remedy}; or write it unverified (--no-verify)"
            problem = f"the grown model cannot be verified: {error.problem}"
            raise UsageError(problem, remedy) from None
        self.report.problems += self.report.casts  # growing changes no types
        if self.exact:
            return self.report.equivalent
        outputs = self.report.outputs
        return (
            bool(outputs)
            and not self.report.problems
            and all(output.differences for output in outputs)
            and not any(
                difference.problem and difference.used <= 1  # its shape, its type, NaN
                for output in outputs
                for difference in output.differences
            )
        )
