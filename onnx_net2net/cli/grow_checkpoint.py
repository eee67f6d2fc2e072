"""``grow`` of a checkpoint folder: settings or a budget in, a folder out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_net2net.cli.outcome import DONE, print_json
from onnx_net2net.errors import UsageError

if TYPE_CHECKING:
    from onnx_net2net.plan.checkpoints import GrownCheckpoint

# What is said of files only, by the names of the arguments.
_NO_USE = (
    "plan",
    "like",
    "flops",
    "keep",
    "emit_plan",
    "fold",
    "ranges",
    "sizes",
    "inputs",
    "provider",
)


def grow_folder(folder: Path, settings: Sequence[str], options: Mapping[str, Any]) -> int:
    """Grow a folder that ``save_pretrained`` wrote, and return the exit code."""
    for name in _NO_USE:
        if options.get(name):
            option = f"--{name.rstrip('s') if name in ('ranges', 'sizes') else name}"
            problem = f"{option.replace('_', '-')} is of no use with a checkpoint folder"
            raise UsageError(problem, "use --set or --params")
    changes = dict(_parsed(setting) for setting in settings)
    if bool(changes) == (options["params"] is not None):
        raise UsageError("give --set, or --params", "for example: --set n_layer=24")
    if changes and (options["prefer"] or options["multiple_of"]):
        raise UsageError("--prefer and --multiple-of go with --params", "the settings say it all")
    from onnx_net2net.model.shards import file_size
    from onnx_net2net.plan.checkpoints import grow_checkpoint, open_checkpoint
    from onnx_net2net.plan.settings import choose_settings

    limit = file_size("5GB" if options["shards"] is None else options["shards"])
    target = options["output"] or folder.with_name(f"{folder.resolve().name}-grown")
    if target.exists() and not (options["force"] or options["dry_run"]):
        raise UsageError(f"{target}: exists", "choose another folder, or --force")
    source = open_checkpoint(folder)
    if not changes:
        changes = choose_settings(
            source,
            options["params"],
            prefer=options["prefer"] or "balanced",
            multiple_of=options["multiple_of"],
        )
    grown = grow_checkpoint(
        source,
        None if options["dry_run"] else target,
        settings=changes,
        seed=options["seed"] or 0,
        force=options["force"],
        verify=not options["no_verify"] and not options["dry_run"],
        shards=limit,
    )
    if options["as_json"]:
        print_json(_values(grown, None if options["dry_run"] else target))
    else:
        click.echo(_text(grown))
        click.echo("not written: a dry run" if options["dry_run"] else f"wrote {target}/")
    return DONE


def _parsed(setting: str) -> tuple[str, Any]:
    """Read ``n_layer=24`` as ("n_layer", 24): numbers, lists and words."""
    name, equals, value = setting.partition("=")
    if not name or not equals:
        raise UsageError(f"--set {setting!r} is not of the form NAME=VALUE", "--set n_layer=24")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _text(grown: GrownCheckpoint) -> str:
    from onnx_net2net.cli.render import verified
    from onnx_net2net.cli.render_growth import growth_text
    from onnx_net2net.cli.tables import empty_table, text
    from onnx_net2net.frameworks.transfer import few

    table = empty_table(("setting", "left"), ("is", "right"), ("becomes", "right"))
    for name, (old, new) in grown.settings.items():
        table.add_row(name, _shown(old), _shown(new))
    lines = [text(table), "", growth_text(grown.grown)]
    lines += (
        f"{scale.path}: {scale.grown:.6g} becomes {scale.large:.6g}, made up for by "
        f"{', '.join(scale.weights)}"
        for scale in grown.settled.scales
    )
    if grown.unread:
        names = few(grown.unread)
        lines.append(f"copied as they are, for the compared output reads none of them: {names}")
    lines += ["", "not verified" if grown.report is None else verified(grown.report)]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return shown if len(shown) < 40 else f"{shown[:36]} ..."


def _values(grown: GrownCheckpoint, target: Path | None) -> dict[str, Any]:
    from onnx_net2net.cli.render_growth import values

    return {
        "settings": {name: list(pair) for name, pair in grown.settings.items()},
        "unread": grown.unread,
        **values(grown.grown),
        "verification": None if grown.report is None else grown.report.as_dict(),
        "output": target and str(target),
    }
