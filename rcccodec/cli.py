"""The ``rcc`` command: wires the commands together and turns every failure into one line and an exit code."""

import gc
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

import rcccodec
from rcccodec.commands import (
    bench,
    compress,
    console,
    decompress,
    inspect,
    rd,
    refit,
    train,
    train_ntc,
    verify,
)
from rcccodec.errors import LimitError, RccError, is_out_of_memory


def _say_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        console.say(f"rcc, version {rcccodec.__version__}")
        context.exit()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=console.examples(
        "rcc compress photo.png -o photo.rcc",
        "rcc decompress photo.rcc -o photo.png",
        "rcc info photo.rcc",
        "rcc COMMAND --help",
    ),
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_say_version,
    help="Show the version and exit.",
)
def rcc() -> None:
    """Lossy image compression by reverse channel coding: nothing is quantised, the index of a shared random
    candidate is sent.
    """


@rcc.command(epilog=console.examples("rcc demo", "rcc demo -o demo.png"))
@click.option("-o", "--output", default="demo.png", show_default=True, help="Side-by-side PNG to write.")
def demo(output: str) -> None:
    """Compress and decompress two pictures that ship with the package, and show what came of it."""
    from rcccodec.demo import run

    run(output)


for _command in (
    compress.compress,
    decompress.decompress,
    inspect.info,
    verify.verify,
    inspect.models,
    inspect.samples,
    train.train,
    refit.refit,
    bench.bench,
    rd.rd,
    train_ntc.train_ntc,
):
    rcc.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run ``rcc`` with these arguments (the process's own if None) and return its exit code.

    RCC_DEBUG=1 in the environment shows the traceback of a failure.
    """
    try:
        arguments = sys.argv[1:] if arguments is None else list(arguments)
        stopped = rcc.main(args=arguments, prog_name="rcc", standalone_mode=False)
        return stopped if isinstance(stopped, int) else 0
    except click.UsageError as error:
        error.message = console.shown_text(error.message)
        with suppress(OSError):  # nobody can be told
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", console.INTERRUPTED)
    except console.Terminated:
        return _fail("terminated", console.TERMINATED)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except RccError as error:
        return _fail(f"error: {error}", error.exit_code)
    except Exception as error:
        if is_out_of_memory(error):
            return _fail("error: out of memory", LimitError.exit_code)
        # the last resort: a bug, still in one line
        return _fail(f"error: unexpected {type(error).__name__}: {error}", 1)


def main() -> None:
    """Entry point of the ``rcc`` script."""
    gc.set_threshold(100_000, 10, 10)  # else going through all that torch imports takes a tenth of a start
    signal.signal(signal.SIGTERM, console.terminate)
    sys.exit(run())


def _fail(message: str, exit_code: int) -> int:
    if os.environ.get("RCC_DEBUG") == "1":
        traceback.print_exc()
    console.remark(message, quiet=False)
    return exit_code


if __name__ == "__main__":
    main()
