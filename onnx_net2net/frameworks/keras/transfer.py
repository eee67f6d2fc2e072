"""Two Keras models: the larger one as a target that grown weights are written into.

    pair = Pair(small, large)
    fitted = pair.fit(GrownState(...))   # raises for all that does not fit
    with fitted.written():          # the old values come back if anything is raised
        ...

Both networks are told with the paths of the larger model's variables: Keras counts layers per
session, so that those of the smaller one may be other numbers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras
import numpy as np

from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.frameworks.keras.exporter import exported, variables
from onnx_net2net.frameworks.keras.moments import moments, problem_of
from onnx_net2net.frameworks.keras.transfer_check import Examples, inference, training
from onnx_net2net.frameworks.transfer import (
    GrownState,
    Setting,
    Transferred,
    holding,
    note_agreement,
    require_fit,
)

__all__ = ["Fitted", "Pair", "counterparts"]


class Pair:
    """A trained Keras model, a larger one, and inputs that both take; random ones by default."""

    def __init__(
        self,
        small: keras.Model,
        large: keras.Model,
        inputs: Any = None,
        optimizers: Sequence[keras.Optimizer] = (),
    ) -> None:
        problem = problem_of(*optimizers) if optimizers else None
        if problem is not None:
            raise UsageError(problem, "give two of one kind: SGD, or one of the family of Adam")
        self.small, self.large = small, large
        own, self.variables = variables(small), variables(large)
        if {*map(id, own.values())} & {*map(id, self.variables.values())}:
            raise UsageError("both models share variables", "build the larger one anew")
        names = counterparts(own, self.variables)
        self.former = {names.get(path, path): variable for path, variable in own.items()}
        self.small_model, self.large_model = exported(small, names), exported(large, {})
        self.examples = Examples(self.small_model, small, inputs)
        self.notes: list[str] = []

    def stored(self) -> list[str]:
        """Return the names of the larger model's variables, among the weights of its network."""
        return [name for name in self.variables if name in self.large_model.weights]

    def optimizers(self) -> tuple[Any, Any]:
        """Return those that both models are compiled with, if a state can go from one to the other;
        else the report will say why not.
        """
        own, other = (getattr(model, "optimizer", None) for model in (self.small, self.large))
        if own is None or not own.built:
            return None, None
        problem = "the larger model is not compiled" if other is None else problem_of(own, other)
        if problem is None:
            return own, other
        self.notes.append(f"the optimizer begins anew: {problem}")
        return None, None

    def fit(self, grown: GrownState) -> Fitted:
        """Return what to write for the larger one to be ``grown``. Raises Refused."""
        return Fitted(self, grown)


def counterparts(small: Iterable[str], large: Iterable[str]) -> dict[str, str]:
    """Return what paths of variables are in the larger model, where Keras counted otherwise.

    >>> counterparts(["dense/kernel", "dense_1/kernel"], ["dense_2/kernel", "dense_3/kernel"])
    {'dense/kernel': 'dense_2/kernel', 'dense_1/kernel': 'dense_3/kernel'}

    Paths that differ by such numbers only correspond in their order, which is that of layers.
    Raises Refused where there are not as many of them.
    """
    small, large = list(small), list(large)
    if set(small) <= set(large):
        return {}
    own, other = _by_kind(small), _by_kind(large)
    problems = [
        f"{len(own.get(kind, ()))} of '{kind}' in the smaller model, and "
        f"{len(other.get(kind, ()))} in the larger one"
        for kind in own | other
        if len(own.get(kind, ())) != len(other.get(kind, ()))
    ]
    if problems:
        reason = "".join(f"\n  - {problem}" for problem in problems)
        raise Refused(
            None,
            f"the models do not have the same layers:{reason}",
            "build the larger model of as many layers, or give layers the same names in both",
        )
    return {a: b for kind in own for a, b in zip(own[kind], other[kind], strict=True)}


def _by_kind(paths: Iterable[str]) -> dict[str, list[str]]:
    """Group paths by what is left of them without the numbers that Keras puts behind names."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        kinds["/".join(re.sub(r"_\d+$", "", part) for part in path.split("/"))].append(path)
    return dict(kinds)


@dataclass(frozen=True)
class LayerSetting(Setting):
    """A number that was set on a layer: the ``place`` of it among all layers of the model."""

    place: int = 0

    reminder: ClassVar[str] = "save_weights does not hold these: apply_settings(model) sets them"

    def holder(self, module: Any) -> Any:
        """Return the layer of ``module`` whose attribute it is."""
        return layers_of(module)[self.place]


def layers_of(model: keras.Model) -> list[Any]:
    """Return all layers of a model, those within layers too."""
    return list(model._flatten_layers(include_self=False))


@dataclass
class Fitted:
    """The values of the larger model's variables, and the settings of its norms.

    Raises Refused with everything that does not fit.
    """

    pair: Pair
    grown: GrownState
    values: dict[str, np.ndarray] = field(default_factory=dict)
    settings: list[Setting] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    state: list[tuple[Any, np.ndarray]] = field(default_factory=list)  # of the optimizer

    def __post_init__(self) -> None:
        weights, targets = self.grown.model.weights, self.pair.variables
        for name, target in targets.items():
            if name in weights:
                self._take(name, target)
            else:
                self._keep(name, target)
        for path, old, new in self.grown.epsilons:
            self._set(path, old, new)
        require_fit(self.problems)

    def _take(self, name: str, target: Any) -> None:
        """Note the weight for one variable of the larger model, or why it does not fit."""
        weight = self.grown.model.weights[name]
        if weight.shape != tuple(target.shape):
            shape = tuple(target.shape)
            self.problems.append(f"'{name}' became {weight.shape}, but is {shape}")
        else:
            self.values[name] = weight.array()

    def _keep(self, name: str, target: Any) -> None:
        """Copy what the network does not read, such as an unused head, where it is there."""
        source = self.pair.former.get(name)
        if source is not None and tuple(source.shape) == tuple(target.shape):
            self.values[name] = array_of(source)
        else:
            self.untouched.append(name)

    def _set(self, path: str, old: float, new: float) -> None:
        """Note the attribute that holds the epsilon of a norm."""
        known = [setting for setting in self.settings if setting.path == path]
        places = [
            place
            for place, layer in enumerate(layers_of(self.pair.large))
            if getattr(layer, "path", None) == path and holding(layer, old) == ["epsilon"]
        ]
        if len(places) != 1:
            problem = "no one layer has that as its epsilon"
        elif any(not np.isclose(setting.new, new, 1e-5, 0) for setting in known):
            problem = f"{known[0].new:.7g} elsewhere, where it is used again"
        else:
            if not known:
                number = float(layers_of(self.pair.large)[places[0]].epsilon)
                self.settings.append(LayerSetting(path, "epsilon", number, new, places[0]))
            return
        self.problems.append(
            f"the norm '{path}' needs epsilon {new:.7g} in place of {old:.7g}, but {problem}"
        )

    def move_optimizer(self, optimizer: Any, larger: Any) -> None:
        """Compute the state of the larger model's optimizer. Raises UsageError, Refused."""
        if not larger.built:
            larger.build(self.pair.large.trainable_variables)
        names = {id(variable): name for name, variable in self.pair.former.items()}
        new = {id(variable): name for name, variable in self.pair.variables.items()}
        self.state = list(moments(optimizer, names, larger, new, self.grown.lineage))

    def report(self) -> Transferred:
        """Return what will have been done, before it is compared."""
        lineage = self.grown.lineage
        return Transferred(
            settings=self.settings,
            new=[
                name
                for name, variable in self.pair.variables.items()
                if variable.trainable and lineage.origin(name) != name
            ],
            untouched=self.untouched,
            shapes={name: tuple(v.shape) for name, v in self.pair.variables.items()},
            growths=dict(map(lineage.follow, self.pair.small_model.weights)),
            notes=[*self.grown.notes, *self.pair.notes],
        )

    def check(self, report: Transferred) -> None:
        """Compare both models, the larger one written. Raises Refused where they differ."""
        compared = self.pair.small, self.pair.large, self.pair.examples
        note_agreement(report, inference(*compared), lambda: training(*compared))

    @contextmanager
    def written(self, larger: Any = None) -> Iterator[None]:
        """Write everything; put the old values back if anything is raised."""
        large = self.pair.large
        new = [(self.pair.variables[name], value) for name, value in self.values.items()]
        new += self.state
        old = [(variable, array_of(variable)) for variable, _ in new]
        try:
            _assign(new)
            for setting in self.settings:
                setattr(setting.holder(large), setting.attribute, setting.new)
            yield
        except BaseException:
            _assign(old)
            for setting in self.settings:
                setattr(setting.holder(large), setting.attribute, setting.old)
            raise
        finally:
            if self.settings:  # what was compiled before holds the old numbers
                large.train_function = large.test_function = large.predict_function = None


def _assign(values: Iterable[tuple[Any, np.ndarray]]) -> None:
    for variable, value in values:
        variable.assign(value)


def array_of(variable: Any) -> np.ndarray:
    """Return a copy of what a variable holds."""
    return np.array(keras.ops.convert_to_numpy(variable))
