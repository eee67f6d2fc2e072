"""Epsilons that growing changes, by the scale of their norm: told in the history of a model.

    norm_epsilons(grown.history)        # {"h.0.ln_1.weight": (1e-05, 6.67e-06)}

A class has one epsilon for all its norms. Whoever loads grown weights into it must set these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_net2net.analysis.norms import Normalization
from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.graph import Graph
from onnx_net2net.widening.dimensions import Analysis
from onnx_net2net.widening.growth import Growth
from onnx_net2net.widening.padding import Padding

__all__ = ["changed", "epsilon_lines", "norm_epsilons", "shrunk"]

SHOWN = 6  # norms in a line

Epsilons = dict[str, tuple[float, float]]  # by the scale of a norm: before, and now


def shrunk(graph: Graph, growth: Growth, paddings: Sequence[Padding]) -> Epsilons:
    """Return the epsilons of norms that run over padded vectors."""
    epsilons: Epsilons = {}
    for padding in paddings:
        factor = padding.eta(growth.source(padding.atom)) ** 2
        for norm in padding.norms:
            epsilons[_scale(graph, norm)] = norm.epsilon, factor * norm.epsilon
    return epsilons


def changed(before: Analysis, after: Analysis, sources: Mapping[str, str]) -> Epsilons:
    """Return the epsilons that differ, those of new norms from those of their ``sources``."""
    old, new = _by_scale(before), _by_scale(after)
    pairs = {scale: (old.get(sources.get(scale, scale)), new[scale]) for scale in new}
    return {s: (a, b) for s, (a, b) in pairs.items() if a is not None and a != b}


def _by_scale(analysis: Analysis) -> dict[str, float]:
    norms = (norm for norm in analysis.norms.values() if norm.scale)
    return {_scale(analysis.graph, norm): norm.epsilon for norm in norms}


def _scale(graph: Graph, norm: Normalization) -> str:
    return graph.copies[norm.scale].original if norm.scale in graph.copies else norm.scale


def norm_epsilons(history: Sequence[Mapping[str, Any]]) -> Epsilons:
    """Return all epsilons that the steps of a history changed, under the names in the end.

    A copy of a norm has that of the norm. Raises InvalidModel where a step cannot be read.
    """
    epsilons: Epsilons = {}
    try:
        for step in history:
            for change in [step, *step.get("changes", ())]:
                moved = change.get("renames", {})
                epsilons = {moved.get(name, name): pair for name, pair in epsilons.items()}
                for new, old in change.get("sources", {}).items():
                    if old in epsilons:
                        epsilons[new] = epsilons[old]
                for name, (old, new) in change.get("epsilons", {}).items():
                    epsilons[name] = epsilons.get(name, (float(old), 0.0))[0], float(new)
    except (AttributeError, TypeError, ValueError):
        raise InvalidModel(
            "the history does not tell which epsilons changed",
            "grow the model again with this version",
        ) from None
    return {name: (old, new) for name, (old, new) in epsilons.items() if old != new}


def epsilon_lines(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each change that norms have in common, with the modules that carry it."""
    alike: dict[str, list[str]] = {}
    for scale, (old, new) in norm_epsilons(history).items():
        path = scale.rpartition(".")[0] or scale
        alike.setdefault(f"{old:.6g} -> {new:.6g}", []).append(path)
    return [
        f"epsilon {change} in {', '.join(sorted(norms)[:SHOWN])}"
        + (f" and {len(norms) - SHOWN} more norms" if len(norms) > SHOWN else "")
        for change, norms in alike.items()
    ]
