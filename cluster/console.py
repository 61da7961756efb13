"""How every command speaks: data on stdout (JSON on request), words on stderr, errors as one sentence and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from market.errors import InputError, LstmcError

if TYPE_CHECKING:
    from configs.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]
INTERRUPTED = 130


def new_app(help: str = "") -> typer.Typer:
    return typer.Typer(
        help=help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )


def example(text: str) -> str:
    """The end of a command's --help."""
    return f"Example: {text}"


def settings() -> Settings:
    """The installation that LSTMC_HOME (or --home, or ./.lstmc) names; NotRunning when there is none."""
    from configs.settings import load_settings

    return load_settings()


def show(data: Any, as_json: bool, words: Callable[[Any], str] | None = None) -> None:
    """`data` on stdout: as JSON, or in words."""
    if as_json or words is None:
        print(json.dumps(data, indent=1, default=str))
    else:
        print(words(data))


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rows(titles: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A plain table; columns as wide as their content."""
    cells = [[str(title) for title in titles]] + [
        ["-" if cell is None else str(cell) for cell in line] for line in lines
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(titles))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def comma_list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def moment(text: str | None, name: str) -> Any:
    """`2020-03-03` or `2020-03-03T12:00Z` -> aware UTC datetime; BadTime names the option."""
    from datetime import UTC, datetime

    from market.errors import BadTime

    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise BadTime(
            f"{name} {text!r} is not a time.", hint="Write it like 2020-03-03 or 2020-03-03T12:00Z (UTC)."
        ) from None
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run the CLI; returns the exit code. An LstmcError becomes one sentence on stderr, never a traceback."""
    from typer._click import exceptions as usage

    try:
        return int(app(args=arguments, standalone_mode=False) or 0)
    except LstmcError as error:
        note(f"lstmc: {error.message}")
        if error.hint:
            note(f"       {error.hint}")
        return error.exit_code
    except usage.ClickException as error:
        error.show(file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `lstmc ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def one_of(value: str, allowed: Sequence[str], what: str) -> str:
    if value not in allowed:
        raise InputError(f"Unknown {what} {value!r}.", hint=f"Use one of {', '.join(allowed)}.")
    return value
