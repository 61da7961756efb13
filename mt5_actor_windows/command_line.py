"""How a program of the Windows host speaks where neither typer nor `lstmc` is installed: argparse, our words, our exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from market.errors import LstmcError

INTERRUPTED = 130


def new_parser(program: str, text: str, example: str, commands: Any = None, name: str = "") -> argparse.ArgumentParser:
    """A parser whose help ends with an example; with `commands` (from add_subparsers) that of the command `name`."""
    form = {"prog": program, "description": text, "epilog": f"Example: {example}"}
    if commands is None:
        return argparse.ArgumentParser(**form)  # type: ignore[arg-type]
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, **form)
    return made


def add_home(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("LSTMC_HOME") or ".lstmc"
    parser.add_argument(
        "--home", default=default, metavar="DIR", help="the installation's folder (default: LSTMC_HOME, else ./.lstmc)"
    )


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(program: str, command: Callable[[], int]) -> int:
    """The exit code. An LstmcError becomes one sentence and its hint on standard error, never a traceback."""
    try:
        return command()
    except LstmcError as error:
        note(f"{program}: {error.message}")
        if error.hint:
            note(f"{' ' * len(program)}  {error.hint}")
        return error.exit_code
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
