"""The command line: `stratoscope COMMAND`. Subcommands are found by walking this folder."""

from __future__ import annotations

import logging
import os
import pkgutil
import sys
import traceback
from importlib import import_module
from typing import Annotated

import typer

import stratoscope.cli as home
from stratoscope.errors import StratoscopeError

CANCELLED = 130

app = typer.Typer(
    name="stratoscope",
    help="Shows what every layer of a neural network has learned, how its training is going, and what to do about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from stratoscope.version import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["STRATOSCOPE_DEBUG"] = "1"
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("stratoscope").setLevel(logging.DEBUG)


def _add_commands() -> None:
    for module in pkgutil.iter_modules(home.__path__):
        register = getattr(import_module(f"{home.__name__}.{module.name}"), "register", None)
        if register is not None:
            register(app)


def main() -> None:
    """Run a command.

    Exit codes: 0 it ran; 1 issues were found and `--strict` was given; 2 it could not run; 130 it was cancelled.
    """
    _add_commands()
    try:
        # outside standalone mode an exit code is what the call returns, also after a Ctrl-C
        code = app(standalone_mode=False) or 0
        if code == CANCELLED:
            raise KeyboardInterrupt
        sys.exit(code)
    except StratoscopeError as error:
        _stop(str(error), 2, error)
    except KeyboardInterrupt as error:
        _stop("Cancelled; what was measured before is kept where the record has a folder.", CANCELLED, error)
    except typer.Abort as error:
        _stop("Cancelled.", CANCELLED, error)
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is not None:
            if not usage():  # without a command the help has been printed, and there is nothing to add
                sys.exit(2)
            _stop(f"{usage()} Try --help.", 2, error)
        if isinstance(error, OSError) and error.filename is not None:
            _stop(f"{error.filename}: {error.strerror}.", 2, error)
        _stop(f"{type(error).__name__}: {error} (this is a fault of stratoscope; --debug shows where)", 2, error)


def _stop(sentence: str, code: int, error: BaseException) -> None:
    if os.environ.get("STRATOSCOPE_DEBUG"):
        traceback.print_exception(error)
    print(f"stratoscope: {sentence}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
