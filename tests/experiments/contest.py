"""A contest: several ways to begin with one network, each trained alike from three seeds.

    CONTEST = Contest("wider", digits, {"teacher": ..., "scratch": ..., ...}, steps=4096)
    main(CONTEST)

Every entrant gets the same search, on a seed of its own, judged on a set that is not reported: its
rate is doubled, or halved, as long as that helps, and then a start without warm-up is tried. It is
trained as long for that as it will be: of fewer steps, small rates seem best for whatever grew.
Whatever was trained is a piece, a JSON file that is written when it is done, so that a run that is
cut off goes on from there. A network that is trained from random weights is the same piece in
every contest.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from data import Data
from growing import Build, Origin, label, scratch
from report import plot, summary, table, write
from training import Schedule, Start, Watch, train

import onnx_net2net as n2n

HERE = Path(__file__).parent
SEARCH_SEED = 0
WARMUP = 102  # steps
Piece = dict[str, Any]


@dataclass(frozen=True)
class Entrant:
    """How a network begins, from which other entrant, if from any, and how it is trained.

    What ``teacher`` cost counts as cost of this one, too. Training takes ``steps``, or ends at a
    plateau, where twice the steps lower the loss by less than the share ``plateau``. Both ``steps``
    and ``data`` are the contest's unless they are given. ``factor`` stands for no search: the rate
    is this many times the teacher's, and reached after ``warmup`` steps.
    """

    begin: Callable[[Origin], Start]
    teacher: str | None = "teacher"
    steps: int | None = None
    plateau: float = 0.0
    data: Callable[[], Data] | None = None
    factor: float | None = None
    warmup: int = 0


def teacher(build: Build, steps: int = 8192, plateau: float = 0.03) -> Entrant:
    """Return a network that is trained from random weights until it hardly gets better."""
    return Entrant(partial(scratch, build=build), None, steps, plateau)


@dataclass(frozen=True)
class Contest:
    """What is compared, how long each entrant is trained, and from which seeds.

    ``baseline`` is the entrant whose final loss the others are to reach. ``watch`` measures
    something else of the networks of those who are nobody's teacher. Rates are searched with no
    more than ``steps``, also those of teachers.
    """

    name: str
    data: Callable[[], Data]
    entrants: Mapping[str, Entrant]
    steps: int
    rate: float = 4e-3
    seeds: tuple[int, ...] = (1, 2, 3)
    baseline: str = "scratch"
    watch: Watch | None = None
    folder: Path = HERE
    searched: bool = True

    def smoke(self) -> Contest:
        """Return the same with next to no training: it shows that everything runs."""
        entrants = {
            name: replace(e, steps=e.steps and 2, data=e.data and partial(_few, e.data))
            for name, e in self.entrants.items()
        }
        few = replace(self, entrants=entrants, data=partial(_few, self.data))
        return replace(few, steps=2, seeds=(1,), searched=False)

    @property
    def teachers(self) -> set[str | None]:
        """Return the names of those whose networks others begin from."""
        return {entrant.teacher for entrant in self.entrants.values()}

    def level(self, name: str) -> int:
        """Return how many others have to be trained before, one after another."""
        teacher = self.entrants[name].teacher
        return 0 if teacher is None else 1 + self.level(teacher)

    def path(self, name: str, seed: int, schedule: Schedule, suffix: str) -> Path:
        """Return the file of a piece."""
        entrant, folder = self.entrants[name], self.name
        watched = self.watch is not None and name not in self.teachers
        if getattr(entrant.begin, "func", None) is scratch and not watched:
            data = label(entrant.data or self.data)
            folder, name = "scratch", f"{label(entrant.begin.keywords['build'])} {data}"
        how = f"{schedule.steps} steps rate {schedule.rate:g} warm-up {schedule.warmup}"
        slug = re.sub(r"[^\w.]+", "-", f"{name} seed {seed} {how}").strip("-")
        return self.folder / "pieces" / folder / f"{slug}{suffix}"

    def origin(self, name: str, seed: int, schedules: Mapping[str, Schedule]) -> Origin:
        """Return what an entrant begins from. Its teacher has been trained."""
        entrant, exports = self.entrants[name], self.folder / "pieces" / "exports"
        data = (entrant.data or self.data)()
        if entrant.teacher is None:
            return Origin(data, seed, exports)
        teacher = partial(self.path, entrant.teacher, seed, schedules[entrant.teacher])
        state = torch.load(teacher(".pt"), weights_only=True)
        return Origin(data, seed, exports, n2n.load(teacher(".onnx")), state)

    def piece(
        self, name: str, seed: int, schedule: Schedule, schedules: Mapping[str, Schedule]
    ) -> Piece:
        """Train an entrant, or read how it went. The networks of teachers are written, too.

        ``schedules`` are those of all teachers before.
        """
        settings = {"seed": seed} | asdict(schedule)
        keep = name in self.teachers and schedule == schedules.get(name)
        path = partial(self.path, name, seed, schedule)
        if path(".json").exists() and (not keep or path(".pt").exists()):
            piece: Piece = json.loads(path(".json").read_text())
            if piece["settings"] == settings:
                return piece
        began = time.perf_counter()
        origin = self.origin(name, seed, schedules)
        start = self.entrants[name].begin(origin)
        watch = None if name in self.teachers else self.watch
        module, optimizer, points = train(start, origin.data, schedule, seed, watch)
        path("").parent.mkdir(parents=True, exist_ok=True)
        if keep:
            n2n.absorb(start.model, module).save(path(".onnx"), force=True)
            torch.save(optimizer.state_dict(), path(".pt"))
        piece = {
            "settings": settings,
            "parameters": sum(p.numel() for p in module.parameters()),
            "flops": start.flops,
            "seconds": round(time.perf_counter() - began, 1),
            "points": points,
        }
        write(path(".json"), piece)
        loss = points[-1]["test loss"]
        print(f"  {path('').name}: test loss {loss:.4f}, {piece['seconds']:.0f} s", flush=True)
        return piece

    def schedule(self, name: str, schedules: Mapping[str, Schedule]) -> Schedule:
        """Return how to train an entrant: as its teacher, or as is best for it."""
        entrant = self.entrants[name]
        whole = Schedule(entrant.steps or self.steps, self.rate, entrant.warmup, entrant.plateau)
        if entrant.factor is not None:
            return replace(whole, rate=entrant.factor * schedules[entrant.teacher].rate)

        steps = min(whole.steps, self.steps)

        def loss(rate: float, warmup: int) -> float:
            schedule = Schedule(steps, rate, warmup)
            piece = self.piece(name, SEARCH_SEED, schedule, schedules)
            value = piece["points"][-1]["valid loss"]
            return value if math.isfinite(value) else math.inf

        rate, warmup = self.rate, WARMUP
        if self.searched:
            for factor in (2.0, 0.5):
                while loss(rate * factor, warmup) < loss(rate, warmup):
                    rate *= factor
            warmup = min((warmup, 0), key=partial(loss, rate))
        return replace(whole, rate=rate, warmup=warmup)


def _few(data: Callable[[], Data]) -> Data:
    """Return data of which a few samples judge."""
    whole = data()
    valid, test = ((x[:16], y[:16]) for x, y in (whole.valid, whole.test))
    return replace(whole, valid=valid, test=test)


def _prepare() -> None:
    """Leave the cores to the processes, and be quiet about exports."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)


def _pool(jobs: int) -> Executor:
    """Return what runs tasks in this many processes, or in this one."""
    if jobs == 1:
        return ThreadPoolExecutor(1, initializer=_prepare)
    return ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_prepare)


def _scheduled(contest: Contest, name: str, schedules: dict[str, Schedule]) -> tuple[str, Schedule]:
    return name, contest.schedule(name, schedules)


def _trained(
    contest: Contest, name: str, seed: int, schedules: dict[str, Schedule]
) -> tuple[str, Piece]:
    return name, contest.piece(name, seed, schedules[name], schedules)


def run(contest: Contest, jobs: int) -> dict[str, list[Piece]]:
    """Train whatever is not trained yet, in ``jobs`` processes. Return the pieces of each name."""
    schedules: dict[str, Schedule] = {}
    pieces: dict[str, list[Piece]] = {name: [] for name in contest.entrants}
    with _pool(jobs) as pool:

        def phase(title: str, tasks: Iterable[partial[Any]]) -> Iterator[Any]:
            began = time.monotonic()
            futures = [pool.submit(task) for task in tasks]
            for done, future in enumerate(as_completed(futures), 1):
                yield future.result()
                passed = time.monotonic() - began
                left = passed / done * (len(futures) - done)
                progress = f"{done} of {len(futures)}, {passed:.0f} s, about {left:.0f} s left"
                print(f"{contest.name}, {title}: {progress}", flush=True)

        for level, group in groupby(sorted(contest.entrants, key=contest.level), contest.level):
            names = sorted(group, key=lambda name: name not in contest.teachers)
            search = [partial(_scheduled, contest, name, schedules) for name in names]
            schedules |= phase(f"level {level}, search", search)
            training = [
                partial(_trained, contest, name, seed, schedules)
                for name in names
                for seed in (*contest.seeds, *(SEARCH_SEED,) * (name in contest.teachers))
            ]
            for name, piece in phase(f"level {level}, training", training):
                if piece["settings"]["seed"] in contest.seeds:
                    pieces[name].append(piece)
    return {n: sorted(runs, key=lambda run: run["settings"]["seed"]) for n, runs in pieces.items()}


def main(contest: Contest) -> None:
    """Run a contest from the command line, and write what came of it."""
    parser = argparse.ArgumentParser(description=f"The experiment '{contest.name}'.")
    parser.add_argument("--smoke", action="store_true", help="show in seconds that all of it runs")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each [2]")
    parser.add_argument("--plot", action="store_true", help="draw the results that are there")
    parser.add_argument("--folder", type=Path, default=HERE, help="of pieces and results")
    conduct(contest, parser.parse_args())


def conduct(contest: Contest, options: argparse.Namespace) -> None:
    """Run a contest, or only draw it, as the options say."""
    contest = replace(contest, folder=options.folder)
    results = options.folder / "results" / f"{contest.name}.json"
    if options.smoke:
        contest = contest.smoke()
    if not options.plot:
        pieces = run(contest, options.jobs)
        teachers = {name: entrant.teacher for name, entrant in contest.entrants.items()}
        write(results, summary(contest.name, pieces, teachers, contest.baseline))
    found = json.loads(results.read_text())
    print(table(found))
    plot(found, results.with_suffix(".png"))
