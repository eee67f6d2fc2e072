"""What an export does not keep of how a network trains: for a warning, and for the metadata."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["RANDOM", "unkept"]

RANDOM = "onnx_net2net.random"  # the metadata that says what an export does not keep

SHOWN = 5


def unkept(parts: Sequence[str], unknown: str) -> str:
    """Return in words what is not kept; empty where everything is.

    ``parts`` of the network draw random numbers in training mode. ``unknown`` says why training
    mode could not be followed to its end.
    """
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    reasons = [f"the random numbers that {', '.join(parts[:SHOWN])}{more} draw"] if parts else []
    if unknown:
        reasons.append(f"what follows where training mode failed ({unknown})")
    return " and ".join(reasons)
