"""``grow``: what it prints, writes and returns; and that it leaves nothing where it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import onnx_net2net as n2n
from onnx_net2net.plan.costs import costs as count
from tests.cli.test_commands import Run, run
from tests.console import FIXTURES, complaint, finished, left_behind

__all__ = ["run"]
RESNET = FIXTURES / "resnet.dynamo-raw.onnx"
GPT2 = FIXTURES / "gpt2.dynamo-raw.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(GPT2, tmp_path / "gpt2.onnx"))


def test_a_budget_and_the_plan_of_it(run: Run, model: Path, tmp_path: Path) -> None:
    larger, plan, again = (tmp_path / n for n in ("larger.onnx", "plan.toml", "again.onnx"))
    done = run("grow", model, "--params", "2x", "--emit-plan", plan, "-o", larger)
    assert done.code == 0 and done.err == ""
    assert "verified: equivalent" in done.out and f"wrote {plan}" in done.out
    assert "FLOPs are two for each multiply-add, counted at batch=1, sequence=6" in done.out
    told = run("grow", model, "--plan", plan, "-o", again, "--json")
    assert again.read_bytes() == larger.read_bytes()
    values = json.loads(told.out)
    now = n2n.costs(n2n.load(larger))
    assert values["costs"]["after"]["parameters"] == now.parameters
    assert f"{now.parameters:,}" in done.out and f"{now.flops:,}" in done.out
    assert abs(now.parameters / (2 * values["costs"]["before"]["parameters"]) - 1) <= 0.02
    assert values["verification"]["equivalent"] and values["output"] == str(again)


def test_the_history_of_a_budget_is_replayed(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("grow", model, "--flops", "2x", "--seed", 4, "-o", tmp_path / "a.onnx").code == 0
    shown = run("history", tmp_path / "a.onnx", "--replay", model, "-o", tmp_path / "b.onnx")
    assert shown.code == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_dry_run_writes_no_model(run: Run, model: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    shown = run("grow", model, "--params", "2x", "--dry-run")
    assert shown.code == 0 and "not written: a dry run" in shown.out
    assert left_behind(tmp_path) == ["gpt2.onnx"]
    assert run("grow", model, "--params", "2x", "--dry-run", "--emit-plan", plan).code == 0
    assert left_behind(tmp_path) == ["gpt2.onnx", "plan.toml"]


def test_sizes_of_dynamic_dimensions(run: Run, model: Path) -> None:
    shown = run("grow", model, "--params", "2x", "--dry-run", "--size", "sequence=12,20")
    assert "counted at batch=1, sequence=12" in shown.out
    wrong = run("grow", model, "--params", "2x", "--dry-run", "--size", "sequenz=12")
    assert wrong.code == 2 and "did you mean 'sequence'" in wrong.err


def test_a_folded_source(run: Run, tmp_path: Path) -> None:
    source = FIXTURES / "standardised.dynamo-raw.onnx"
    first, second, plan = (tmp_path / n for n in ("a.onnx", "b.onnx", "plan.toml"))
    done = run("grow", source, "--params", "1.5x", "--fold", "-o", first, "--emit-plan", plan)
    assert done.code == 0 and "fold = true" in plan.read_text()
    assert run("grow", source, "--plan", plan, "-o", second).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_noise_is_told(run: Run, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('step = [{ operation = "widen", widths = { conv1 = 9 }, split = "noise" }]')
    done = run("grow", RESNET, "--plan", plan, "-o", tmp_path / "a.onnx")
    assert done.code == 0 and "not exact, as asked" in done.out


def larger(folder: Path) -> Path:
    """A network of the same class with other weights: wider, and three blocks long."""
    steps = [
        {"operation": "widen", "widths": {"model.transformer.wte": 40}, "seed": 5},
        {"operation": "deepen", "block": {"h.1": 1}},
    ]
    return n2n.grow(GPT2, plan=steps).save(folder / "large.onnx")


def test_growth_into_the_shape_of_another_model(run: Run, model: Path, tmp_path: Path) -> None:
    large, plan, again = larger(tmp_path), tmp_path / "plan.toml", tmp_path / "again.onnx"
    done = run("grow", model, "--like", large, "-o", tmp_path / "a.onnx", "--emit-plan", plan)
    assert done.code == 0 and done.err == "" and "verified: equivalent" in done.out
    rows = [line.split() for line in done.out.splitlines()]
    assert ["dimension", "width", "becomes"] in rows
    assert ["model.transformer.wte", "20", "40"] in rows
    assert ["model.transformer.h", "2", "3", "1", "x", "model.transformer.h.1"] in rows
    assert n2n.costs(tmp_path / "a.onnx").parameters == n2n.costs(large).parameters
    shown = run("grow", model, "--plan", plan, "-o", again)
    assert shown.code == 0 and again.read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_a_larger_model_as_json_and_dry(run: Run, model: Path, tmp_path: Path) -> None:
    large = larger(tmp_path)
    done = run("grow", model, "--like", large, "--json", "--dry-run", "--seed", 3)
    values = json.loads(done.out)
    assert values["widths"] == {"model.transformer.wte": [20, 40]}
    assert values["lengths"] == {"model.transformer.h": [2, 3]} and values["output"] is None
    assert left_behind(tmp_path) == ["gpt2.onnx", "large.onnx"]


def test_a_model_that_is_not_larger_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    small = run("grow", larger(tmp_path), "--like", model, "-o", tmp_path / "a.onnx")
    assert small.code == 1 and "would shrink from 40 to 20" in small.err
    assert "'model.transformer.h' would shrink from 3 to 2 members" in small.err
    same = run("grow", model, "--like", model, "-o", tmp_path / "a.onnx")
    assert same.code == 2 and "both networks have the same shape" in same.err
    over = run("grow", model, "--like", tmp_path / "large.onnx", "-o", tmp_path / "large.onnx")
    assert over.code == 2
    assert left_behind(tmp_path) == ["gpt2.onnx", "large.onnx"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "nothing to grow"),
        (["--like", "l", "--plan", "p"], "a plan and a larger model exclude each other"),
        (["--like", "l", "--params", "2x"], "a larger model and a budget exclude each other"),
        (["--like", "l", "--keep", "a"], "--keep goes with --params and --flops only"),
        (["--like", "none.onnx"], "none.onnx: no such file"),
        (["--params", "2x", "--flops", "2x"], "two budgets exclude each other"),
        (["--params", "2x", "--plan", "p"], "a plan and a budget exclude each other"),
        (["--plan", "none.toml"], "none.toml: No such file"),
        (["--plan", "none.toml", "--keep", "a"], "--keep goes with --params and --flops only"),
        (["--params", "0.5x"], "3,789 is less than the model has now (7,579)"),
        (["--params", "1x"], "7,579 is what the model has now (7,579)"),
        (["--params", "2"], "2 is less than the model has now"),
        (["--params", "two"], "--params 'two' is not an amount"),
        (["--params", "-2x"], "is not an amount"),
        (["--params", ""], "--params '' is not an amount"),
        (["--params", "1e99x"], "is absurd"),
        (["--params", "1e9x"], "is absurd"),
        (["--flops", "2y"], "--flops '2y' is not an amount"),
        (["--params", "2x", "--keep", "nothing*"], "--keep 'nothing*' matches no dimension and"),
        (["--params", "2x", "--multiple-of", "0"], "0 is not in the range"),
        (["--params", "2x", "--prefer", "height"], "'height' is not one of"),
    ],
)
def test_bad_usage(run: Run, arguments: list[str], problem: str, tmp_path: Path) -> None:
    result = run("grow", GPT2, *arguments, "-o", tmp_path / "out.onnx")
    assert result.code == 2 and result.out == ""
    first, second = result.err.splitlines()
    assert first.startswith("error: ") and problem in first
    assert second.startswith("  remedy: ")
    assert left_behind(tmp_path) == []


def test_what_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    """A model of fixed dimensions only, and steps too coarse."""
    fixed = FIXTURES / "standardised.dynamo-raw.onnx"
    keep = [part for d in n2n.inspect(n2n.load(fixed)) for part in ("--keep", d.name)]
    problem, _ = complaint(finished("grow", fixed, "--params", "2x", *keep, cwd=tmp_path), 1)
    assert "no dimension of this model can grow, and no block can be copied" in problem
    coarse = ("grow", FIXTURES / "mlp.ts17.onnx", "--params", "2x", "--multiple-of", "512")
    problem, remedy = complaint(finished(*coarse, "-o", "mlp.onnx", cwd=tmp_path), 1)
    assert "within 2% of 1,514 parameters; the nearest give" in problem
    nearest = problem.split("give ")[1].split(" ")[0].replace(",", "")
    assert remedy.startswith(f"--params {nearest}")
    assert left_behind(tmp_path) == []
    done = finished(*coarse[:2], "--params", nearest, *coarse[4:], "-o", "m.onnx", cwd=tmp_path)
    assert done.code == 0, "what the remedy says works"


def test_a_step_that_is_refused_leaves_nothing(run: Run, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[[step]]\noperation = "widen"\nwidths = { conv1 = 9 }\n'
        '[[step]]\noperation = "widen"\nwidths = { fc = 20 }\n'
    )
    emit = tmp_path / "done.toml"
    result = run("grow", RESNET, "--plan", plan, "--emit-plan", emit, "-o", tmp_path / "a.onnx")
    assert result.code == 1 and "step 2 (widen): fc: it cannot grow" in result.err
    told = run("grow", RESNET, "--plan", plan, "-o", tmp_path / "a.onnx", "--json")
    error = json.loads(told.out)["error"]
    assert (error["node"], error["exit"]) == ("fc", 1)
    assert left_behind(tmp_path) == ["plan.toml"]


def test_files_in_the_way(run: Run, model: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text("precious")
    result = run("grow", model, "--params", "2x", "--emit-plan", plan)
    assert result.code == 2 and "plan.toml" in result.err and plan.read_text() == "precious"
    nowhere = run("grow", model, "--params", "2x", "--emit-plan", tmp_path / "no" / "plan.toml")
    assert nowhere.code == 2 and "plan.toml" in nowhere.err
    same = run("grow", model, "--params", "2x", "--emit-plan", model, "--force")
    assert same.code == 2 and "source" in same.err
    both = ("--emit-plan", tmp_path / "a", "-o", tmp_path / "a")
    assert run("grow", model, "--params", "2x", *both).code == 2
    assert left_behind(tmp_path) == ["gpt2.onnx", "plan.toml"]
    assert run("grow", model, "--params", "2x", "--emit-plan", plan, "--force").code == 0
    assert "[[step]]" in plan.read_text()


def test_numbers_are_those_of_the_file(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: what is counted of the grown model is not what the file has."""

    def wrong(found: n2n.Model, sizes: dict[str, int]) -> n2n.Costs:
        costs = count(found, sizes)
        if found.path is None:
            return n2n.Costs(costs.parameters + 1, *list(vars(costs).values())[1:])
        return costs

    monkeypatch.setattr("onnx_net2net.plan.grow.costs", wrong)
    result = run("grow", model, "--params", "2x")
    assert result.code == 1 and "the written file costs" in result.err
    assert left_behind(tmp_path) == ["gpt2.onnx"]
