"""Recorded outputs in the place of a model: what a network gave before is what it is held against.

>>> report = verify("model.onnx", "model.onnx")
>>> report.save_inputs("inputs.npz"), report.save_outputs("outputs.npz")
>>> verify("changed.onnx", against="outputs.npz", inputs="inputs.npz").equivalent
True
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from onnx_net2net.errors import UsageError
from onnx_net2net.model import arrays
from onnx_net2net.verification.feeds import UserInputs, user_feeds
from onnx_net2net.verification.report import Trial
from onnx_net2net.verification.sizes import InputSpec
from onnx_net2net.verification.trial_files import numbered_trials
from onnx_net2net.verification.trials import Outputs, Planned

__all__ = ["planned_trials"]

_REMEDY = "record both in one run, with --save-inputs and --save-outputs"


def planned_trials(
    graph: onnx.GraphProto,
    specs: Sequence[InputSpec],
    inputs: UserInputs | Sequence[UserInputs] | None,
    outputs: UserInputs,
) -> Planned:
    """Return the trials that were recorded. Raises UsageError where files do not fit together."""
    if inputs is None:
        raise UsageError("recorded outputs are compared on the inputs they are of: none are given",
                         "give these with --inputs")  # fmt: skip
    recorded, feeds = _recorded(outputs), user_feeds(inputs, specs)
    if len(recorded) != len(feeds):
        raise UsageError(
            f"the outputs are of {len(recorded)} trials, the inputs of {len(feeds)}", _REMEDY
        )
    declared = [value.name for value in graph.output]
    for name in declared:
        # A sequence has its elements recorded, a map its keys.
        if not any(re.match(re.escape(name) + r"($|\[|\.)", known) for known in recorded[0]):
            raise UsageError(
                f"output {name!r} of the model was not recorded: {', '.join(recorded[0])}", _REMEDY
            )
    pairs = zip(feeds, recorded, strict=True)
    return [(Trial(label), given, expected) for (label, given), expected in pairs]


def _recorded(source: UserInputs) -> list[Outputs]:
    """Read the outputs of each trial."""
    if isinstance(source, Mapping):
        trials = numbered_trials(source)
    else:
        try:
            contents = arrays.read(Path(source))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read outputs from {source}: {error}", _REMEDY) from error
        if isinstance(contents, np.ndarray):
            raise UsageError(f"{source} holds one array without a name", _REMEDY)
        trials = numbered_trials(contents)
    if not trials or not all(trials):
        raise UsageError("no outputs are recorded", _REMEDY)
    return [
        {name: y.astype(object) if y.dtype.kind == "U" else np.asarray(y) for name, y in t.items()}
        for t in trials
    ]
