"""The command ``switchover``: a thin face over the package.

Every command prints a table for people, JSON with ``--json``, and exits 0 when done, 1 when a migration did
not complete, 2 on wrong usage or bad input, with one line that says what and where.
"""

from __future__ import annotations

import sys

import click

from switchover.errors import SwitchoverError, UsageError

from .calibrate import calibrate
from .codecs import codecs
from .compare import compare
from .demo import demo
from .doctor import doctor
from .parts import listings
from .qemu import qemu
from .receive import receive
from .record import record
from .run import run
from .simulate import simulate
from .stream import stream
from .trace import trace
from .tune import tune

NOT_COMPLETED = 1
WRONG = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="switchover", message="%(prog)s %(version)s")
def group() -> None:
    """Experiments with live migration: real memory, real workloads, any policy."""


for command in (
    run,
    receive,
    qemu,
    record,
    trace,
    simulate,
    tune,
    calibrate,
    compare,
    stream,
    codecs,
    demo,
    doctor,
    *listings,
):
    group.add_command(command)


def main() -> None:
    """Entry point: runs the command and turns errors into one line and an exit code."""
    try:
        code = group.main(standalone_mode=False)
    except click.exceptions.Abort:
        fail("interrupted", NOT_COMPLETED)
    except click.UsageError as error:
        where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        fail(f"{error.format_message()}{where}", WRONG)
    except click.ClickException as error:
        fail(error.format_message(), WRONG)
    except UsageError as error:
        fail(str(error), WRONG)
    except SwitchoverError as error:
        fail(str(error), NOT_COMPLETED)
    except KeyboardInterrupt:
        fail("interrupted", NOT_COMPLETED)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        sys.exit(0)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def fail(text: str, code: int) -> None:
    """Prints one line and exits."""
    click.echo(f"switchover: {' '.join(text.split())}", err=True)
    sys.exit(code)
