"""A contest: several ways to begin with one network, each trained alike from three seeds.

    CONTEST = Contest("wider", digits, teachers, {"scratch": ..., ...}, steps=2048)
    main(CONTEST)

Every contestant gets the same search, on a seed of its own, judged on a set that is not reported:
its rate is doubled, or halved, as long as that helps, and then a start without warm-up is tried.
Whatever was trained is a piece, a JSON file that is written when it is done, so that a run that is
cut off goes on from there.
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
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from data import Data
from growing import Build, Origin, scratch
from report import plot, summary, table, write
from training import Schedule, Start, Watch, train

import onnx_net2net as n2n

HERE = Path(__file__).parent
SEARCH_SEED = 0
Piece = dict[str, Any]


@dataclass(frozen=True)
class Teacher:
    """A smaller network, trained until twice the steps lower its loss by less than ``plateau``.

    It begins with random weights, and with AdamW, unless ``begin`` says otherwise.
    """

    build: Build
    steps: int
    plateau: float = 0.02
    begin: Callable[[Origin], Start] | None = None


@dataclass(frozen=True)
class Contestant:
    """How a network begins, and from which teacher, if from any.

    ``factor`` stands for no search: the rate is this many times the teacher's, and reached after
    ``warmup`` steps.
    """

    begin: Callable[[Origin], Start]
    teacher: str | None = "teacher"
    factor: float | None = None
    warmup: int = 0


@dataclass(frozen=True)
class Contest:
    """What is compared, how long each contestant is trained, and from which seeds.

    ``baseline`` is the contestant whose final loss the others are to reach, ``watch`` measures
    something else of the networks.
    """

    name: str
    data: Callable[[], Data]
    teachers: Mapping[str, Teacher]
    contestants: Mapping[str, Contestant]
    steps: int
    rate: float = 4e-3
    seeds: tuple[int, ...] = (1, 2, 3)
    baseline: str = "scratch"
    watch: Watch | None = None
    folder: Path = HERE
    searched: bool = True

    def smoke(self) -> Contest:
        """Return the same with next to no training: it shows that everything runs."""
        teachers = {name: replace(t, steps=2) for name, t in self.teachers.items()}
        return replace(self, teachers=teachers, steps=2, seeds=(1,), searched=False)

    def entrants(self) -> dict[str, Contestant]:
        """Return contestants and teachers, which are trained alike, by name."""
        teachers = {
            name: Contestant(teacher.begin or partial(scratch, build=teacher.build), None)
            for name, teacher in self.teachers.items()
        }
        return teachers | dict(self.contestants)

    def path(self, label: str, suffix: str) -> Path:
        """Return the file of a piece."""
        slug = re.sub(r"[^\w.]+", "-", label).strip("-")
        return self.folder / "pieces" / self.name / f"{slug}{suffix}"

    def origin(self, name: str, seed: int) -> Origin:
        """Return what a contestant begins from. Its teacher has been trained."""
        teacher, exports = self.entrants()[name].teacher, self.folder / "pieces" / "exports"
        if teacher is None:
            return Origin(self.data(), seed, exports)
        label = f"{teacher} seed {seed}"
        state = torch.load(self.path(label, ".pt"), weights_only=True)
        return Origin(self.data(), seed, exports, n2n.load(self.path(label, ".onnx")), state)

    def piece(self, name: str, seed: int, schedule: Schedule, *, keep: bool = False) -> Piece:
        """Train a contestant, or read how it went. ``keep`` writes the network down, too."""
        settings = {"seed": seed} | asdict(schedule)
        label = f"{name} seed {seed}"
        if not keep and seed == SEARCH_SEED:
            label += f" rate {schedule.rate:g} warm-up {schedule.warmup}"
        path = self.path(label, ".json")
        if path.exists():
            piece = json.loads(path.read_text())
            if piece["settings"] == settings:
                return piece
        began = time.perf_counter()
        origin = self.origin(name, seed)
        start = self.entrants()[name].begin(origin)
        module, optimizer, points = train(start, origin.data, schedule, seed, self.watch)
        if keep:
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = origin.exported(self.teachers[name].build)
            n2n.absorb(shape, module).save(self.path(label, ".onnx"), force=True)
            torch.save(optimizer.state_dict(), self.path(label, ".pt"))
        piece = {
            "settings": settings,
            "parameters": sum(p.numel() for p in module.parameters()),
            "flops": start.flops,
            "seconds": round(time.perf_counter() - began, 1),
            "points": points,
        }
        write(path, piece)
        loss = points[-1]["test loss"]
        print(f"  {label}: test loss {loss:.4f}, {piece['seconds']:.0f} s", flush=True)
        return piece

    def search(self, name: str) -> Schedule:
        """Return the rate and the warm-up that are best after half the steps."""
        steps = self.steps // 2
        warmup = steps // 10

        def loss(rate: float, warmup: int) -> float:
            points = self.piece(name, SEARCH_SEED, Schedule(steps, rate, warmup))["points"]
            value = points[-1]["valid loss"]
            return value if math.isfinite(value) else math.inf

        rate = self.rate
        if self.searched:
            for factor in (2.0, 0.5):
                while loss(rate * factor, warmup) < loss(rate, warmup):
                    rate *= factor
            warmup = min((warmup, 0), key=partial(loss, rate))
        return Schedule(self.steps, rate, warmup)


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


def _searched(contest: Contest, name: str) -> tuple[str, Schedule]:
    return name, contest.search(name)


def _trained(contest: Contest, name: str, seed: int, schedule: Schedule) -> tuple[str, Piece]:
    keep = name in contest.teachers
    if keep:
        teacher = contest.teachers[name]
        schedule = replace(schedule, steps=teacher.steps, plateau=teacher.plateau)
    return name, contest.piece(name, seed, schedule, keep=keep)


def run(contest: Contest, jobs: int) -> dict[str, list[Piece]]:
    """Train whatever is not trained yet, in ``jobs`` processes. Return the pieces of each name."""
    entrants, names = contest.entrants(), list(contest.contestants)
    alone = [name for name, entrant in entrants.items() if entrant.teacher is None]
    with _pool(jobs) as pool:

        def phase(title: str, tasks: list[partial[Any]]) -> Iterator[Any]:
            began = time.monotonic()
            futures = [pool.submit(task) for task in tasks]
            for done, future in enumerate(as_completed(futures), 1):
                yield future.result()
                passed = time.monotonic() - began
                left = passed / done * (len(tasks) - done)
                progress = f"{done} of {len(tasks)}, {passed:.0f} s, about {left:.0f} s left"
                print(f"{contest.name}, {title}: {progress}", flush=True)

        def search(names: Iterable[str]) -> list[partial[Any]]:
            return [partial(_searched, contest, name) for name in names]

        def training(names: Iterable[str], seeds: Iterable[int]) -> list[partial[Any]]:
            return [partial(_trained, contest, n, seed, best[n]) for seed in seeds for n in names]

        best = dict(phase("search without teachers", search(alone)))
        seeds = (SEARCH_SEED, *contest.seeds)
        done = list(phase("teachers", training(contest.teachers, seeds)))
        for name, entrant in contest.contestants.items():
            if entrant.factor is not None:
                rate = entrant.factor * best[entrant.teacher].rate
                best[name] = Schedule(contest.steps, rate, entrant.warmup)
        best |= phase("search", search(name for name in names if name not in best))
        done += phase("training", training(names, contest.seeds))
    pieces: dict[str, list[Piece]] = {name: [] for name in entrants}
    for name, piece in done:
        if piece["settings"]["seed"] != SEARCH_SEED:
            pieces[name].append(piece)
    return {n: sorted(runs, key=lambda run: run["settings"]["seed"]) for n, runs in pieces.items()}


def main(contest: Contest) -> None:
    """Run a contest from the command line, and write what came of it."""
    parser = argparse.ArgumentParser(description=f"The experiment '{contest.name}'.")
    parser.add_argument("--smoke", action="store_true", help="show in seconds that all of it runs")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each [2]")
    parser.add_argument("--plot", action="store_true", help="draw the results that are there")
    parser.add_argument("--folder", type=Path, default=HERE, help="of pieces and results")
    options = parser.parse_args()
    contest = replace(contest, folder=options.folder)
    results = options.folder / "results" / f"{contest.name}.json"
    if options.smoke:
        contest = contest.smoke()
    if not options.plot:
        pieces = run(contest, options.jobs)
        teachers = {name: entrant.teacher for name, entrant in contest.entrants().items()}
        write(results, summary(contest.name, pieces, teachers, contest.baseline))
    found = json.loads(results.read_text())
    print(table(found))
    plot(found, results.with_suffix(".png"))
