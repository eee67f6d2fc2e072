"""One table of operators from the files of their families: of rules, or of translations.

assembled("onnx_net2net.operators", ("elementwise", "linear"))     # {("", "Add"): ..., ...}
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

__all__ = ["assembled"]


def assembled(package: str, families: Iterable[str]) -> dict[tuple[str, str], Any]:
    """Return all entries by (domain, operator), from ``TABLES`` of each family's module.

    Raise ValueError where two families have an entry for one operator.
    """
    entries: dict[tuple[str, str], Any] = {}
    for family in families:
        for domain, table in import_module(f"{package}.{family}").TABLES.items():
            for name, entry in table.items():
                if (domain, name) in entries:
                    raise ValueError(f"{package}: two entries for {domain or 'ai.onnx'}.{name}")
                entries[domain, name] = entry
    return entries
