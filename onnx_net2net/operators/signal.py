"""Fourier transforms.

"a0 n0 n1 -> a0 m0 m1"      DFT(axis=1), n0, n1, m0 and m1 fixed
"""

from __future__ import annotations

from onnx_net2net.operators import hazards
from onnx_net2net.operators.language import Op, Rule, line, names, place_of
from onnx_net2net.operators.record import Extent, Operator, Table, family

TRANSFORM = "a Fourier transform runs over it"


def dft(op: Op) -> Rule:
    """Transform along an axis, an attribute in opset 17 and an input from opset 20 on.

    Real and imaginary parts lie on the last axis.
    """
    axis = int(op.attr("axis", 1))
    if op.opset >= 20:
        axis = int(op.known(2).item()) if op.has(2) else -2
    before = names("a", op.rank())
    after = list(before)
    fixed: dict[str, str] = {}
    for index in (place_of(axis, op.rank()), op.rank() - 1):
        after[index] = f"out{index}"
        fixed |= dict.fromkeys((before[index], after[index]), TRANSFORM)
    return Rule(line([before, ["_"], ["_"]], [after]), fixed=fixed)


def stft(op: Op) -> Rule:
    """Transform each frame of a signal."""
    signal = ["b", "n", "part"][: op.rank()]
    fixed = dict.fromkeys(("n", "part", "frame", "bin", "parts"), TRANSFORM)
    text = line([signal, ["_"], ["_"], ["_"]], [["b", "frame", "bin", "parts"]])
    return Rule(text, fixed=fixed)


COUNTED = Extent.COUNT | Extent.SHAPE
FRAMES = Extent.COUNT | Extent.AMOUNT

TABLES: dict[str, Table] = {
    "": {
        **family("BlackmanWindow HammingWindow HannWindow", Operator(extents={0: COUNTED})),
        "DFT": Operator(dft, extents={1: COUNTED}),
        "MelWeightMatrix": Operator(extents={0: COUNTED, 1: COUNTED, 2: Extent.COUNT}),
        "STFT": Operator(stft, extents={1: FRAMES, 3: FRAMES}, hazard=hazards.unknown_step),
    }
}
