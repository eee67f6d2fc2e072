"""The command line: options in, calls of the library, text out. Only this module prints.

Everything heavier than click is imported inside the commands, so that ``--help`` is immediate.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from onnx_net2net import __version__
from onnx_net2net.cli.bar import Bar
from onnx_net2net.cli.deepen import deepen
from onnx_net2net.cli.export import absorb, export
from onnx_net2net.cli.grow import grow
from onnx_net2net.cli.history import diff, history
from onnx_net2net.cli.inspect import inspect
from onnx_net2net.cli.outcome import DONE
from onnx_net2net.cli.verify import verify
from onnx_net2net.cli.widen import widen
from onnx_net2net.errors import UsageError
from onnx_net2net.progress import follow


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return the exit code.

    Raises Net2NetError for what the user can mend, KeyboardInterrupt for Ctrl-C.
    """
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        follow(Bar(getattr(sys.stderr, "unfiltered", sys.stderr)))
    try:
        result = main.main(list(arguments), "onnx-net2net", standalone_mode=False)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        name = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        remedy = f"see {name or 'onnx-net2net'} --help"
        raise UsageError(error.format_message().rstrip("."), remedy) from None
    return result if isinstance(result, int) else DONE


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Make a trained ONNX network wider or deeper without changing what it computes.

    \b
    onnx-net2net inspect model.onnx
    onnx-net2net widen model.onnx --node conv5 --width 512
    onnx-net2net deepen model.onnx --block encoder.layer.3 --copies 2
    onnx-net2net grow model.onnx --params 2x
    onnx-net2net verify model.onnx model-grown.onnx
    onnx-net2net export model-grown.onnx --to torch -o grown/
    onnx-net2net absorb model-grown.onnx trained.safetensors -o trained.onnx

    Exit codes: 0 done; 1 not equivalent, or refused; 2 bad usage or bad input.
    """


def _quiet(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        follow(None)


for _command in (inspect, widen, deepen, grow, verify, export, absorb, history, diff):
    _command.params.append(
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_quiet,
            help="Show no progress; it is shown on a terminal only, on stderr.",
        )
    )  # fmt: skip
    main.add_command(_command)
