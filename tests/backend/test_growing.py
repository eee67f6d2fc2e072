"""Networks around ONNX's own tests of operators, widened: right, or refused by name.

python -m tests.backend grow             # all of them, with a table at the end
"""

from __future__ import annotations

import pytest

import onnx_net2net as n2n
from onnx_net2net.model.model import Computed, Model
from tests.backend import growing
from tests.backend.cases import by_name
from tests.backend.growing import between_products, growths

PARTS = 8
NAMES = list(by_name())[::40]


@pytest.mark.parametrize("part", range(PARTS))
def test_growth_is_right(part: int) -> None:
    problems, right = [], 0
    for name in NAMES[part::PARTS]:
        for case in (by_name()[name], *between_products(by_name()[name])):
            for widths, result in growths(case):
                right += result.word == "right"
                if result.word in ("wrong", "rejected", "crash"):
                    problems.append(f"{case.name} {widths}: {result}")
    assert problems == []
    assert right


def test_an_axis_of_no_units_does_not_grow() -> None:
    model = n2n.load(by_name()["test_affine_grid_3d_expanded/weights"].model)
    assert all(d.width > 0 for d in n2n.inspect(model) if d.growth != "fixed")


@pytest.mark.parametrize("fault", ["rejected", "wrong"])
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(between_products(by_name()["test_relu"]))
    assert {result.word for _, result in growths(case)} == {"right"}
    widen = n2n.widen

    def faulty(model: Model, widths: dict[str, int]) -> Model:
        weight = widen(model, widths).weights["y@.weight"]
        wrong = Computed("y@.weight", weight.dtype, weight.shape, lambda: weight.array() * 1.5)
        grown = widen(model, widths)
        return grown.with_changes(grown.proto, {"y@.weight": wrong})

    monkeypatch.setattr(n2n, "widen", faulty)
    if fault == "rejected":  # the inputs of the test show nothing
        monkeypatch.setattr(growing, "difference", lambda *_: "")
    assert {result.word for _, result in growths(case)} == {fault}
