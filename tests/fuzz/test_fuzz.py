"""Two thousand changed models, plans and files: whatever is in them, only our own errors come out.

More, by hand: ``python -m tests.fuzz 0 100000``; what that found stands in ``fuzz/RESULTS.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fuzz import corpus, pool, targets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are watched by /proc")
PIECES = 4  # so that they run side by side
EACH = 500


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "corpus"
    corpus.store(path)
    return path


@pytest.mark.parametrize("piece", range(PIECES))
def test_only_own_errors_come_out(piece: int, models: Path) -> None:
    found = list(pool.outcomes(range(piece * EACH, (piece + 1) * EACH), models))
    assert len(found) == EACH
    wrong = [outcome for outcome in found if "wrong" in outcome]
    assert not wrong, "\n".join(f"{o['seed']}: {o['call']}: {o['error']}" for o in wrong)
    assert sum(outcome["calls"] for outcome in found) > 3 * EACH, "or nothing was tried"
    refused = sum(outcome["refused"] for outcome in found)
    assert EACH // 4 < refused < 3 * EACH, "changes are all harmless, or all fatal"


@pytest.mark.parametrize("fault", sorted(pool.FAULTS))
def test_faults_are_seen(fault: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher sees each kind of fault, says which input it was, and goes on."""
    monkeypatch.setenv(pool.PLANT, fault)
    stored = corpus.stored(models)
    whole = next(n for n in range(99) if targets.made(n, stored)[1] == "rule" and _loads(n, stored))
    (outcome,) = pool.outcomes([whole], models)
    assert (outcome["wrong"], outcome["seed"], outcome["call"]) == (fault, whole, "inspect")


def _loads(number: int, stored: corpus.Corpus) -> bool:
    outcome = targets.run_input(number, stored, lambda call: None, False)
    return outcome["calls"] > 2


def test_inputs_are_the_same_each_time(models: Path) -> None:
    stored = corpus.stored(models)
    for number in range(20):
        assert targets.made(number, stored)[2:] == targets.made(number, stored)[2:]
