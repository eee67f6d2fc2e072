"""What a network draws at random while it trains, and what of it an export does not keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["RANDOM", "Drawn"]

RANDOM = "onnx_net2net.random"  # the metadata that says what an export does not keep

SHOWN = 5


@dataclass
class Drawn:
    """The ``ratios`` of the calls of dropout, by where they are, in order, 0 where none is kept.

    ``lost`` names the parts that draw otherwise, with their kinds. ``unknown`` says why training
    mode could not be followed to its end.
    """

    ratios: dict[Any, list[float]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    unknown: str = ""

    def message(self) -> str:
        """Return in words what is not kept; empty where everything is."""
        more = f" and {len(self.lost) - SHOWN} more" if len(self.lost) > SHOWN else ""
        shown = ", ".join(self.lost[:SHOWN])
        reasons = [f"the random numbers that {shown}{more} draw"] if shown else []
        if self.unknown:
            reasons.append(f"what follows where training mode failed ({self.unknown})")
        return " and ".join(reasons)
