"""Evaluates rows of the contract table against a MetaTrader5 and says what came back, as JSON.

Runs on Windows Python over the real wheel (rows on standard input) and in the tests over the simulated terminal.
Needs nothing but numpy.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np


class Text(str):
    """A str subclass, as pandas and numpy hand them out."""


class Moment(datetime):
    """A datetime subclass, as pandas hands them out."""


def answers(terminal: Any, rows: list[list[str]]) -> list[dict[str, Any]]:
    """One answer per row (function, arguments as source). Each row begins after a `shutdown`, so with (1, 'Success')."""
    given = {"UTC": UTC, "date": date, "datetime": datetime, "timedelta": timedelta, "timezone": timezone, "np": np}
    given |= {"Text": Text, "Moment": Moment, "mt5": terminal, "H1": 16385}
    return [_answer(terminal, f"mt5.{function}({arguments})", given) for function, arguments in rows]


def _answer(terminal: Any, source: str, given: dict[str, Any]) -> dict[str, Any]:
    terminal.shutdown()
    try:
        result = eval(source, dict(given))  # noqa: S307 - the rows are this repository's own
    except Exception as error:
        return {"raises": _said(error), "cause": _said(error.__cause__), "last_error": list(terminal.last_error())}
    return {"returns": repr(result), "kind": type(result).__name__, "last_error": list(terminal.last_error())}


def _said(error: BaseException | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"


def surface(terminal: Any) -> dict[str, Any]:
    """Public names: constants with their values, functions, struct types with their fields."""
    names = [name for name in dir(terminal) if not name.startswith("_")]
    found = {name: getattr(terminal, name) for name in names}
    structs = {name: one for name, one in found.items() if isinstance(one, type) and issubclass(one, tuple)}
    return {
        "constants": {name: one for name, one in found.items() if name.isupper() and isinstance(one, int)},
        "functions": sorted(name for name, one in found.items() if callable(one) and not isinstance(one, type)),
        "structs": {name: struct_facts(one) for name, one in structs.items()},
        "fresh_last_error": list(terminal.last_error()),
        "fresh_version": list(terminal.version()),
    }


def struct_facts(kind: Any) -> dict[str, Any]:
    """What a caller can rely on: the order of the fields, `_asdict`, and what a namedtuple has but these lack."""
    one = kind(range(kind.n_fields))
    has = {name: hasattr(one, name) for name in ("_asdict", "_fields", "_replace", "_make", "__match_args__")}
    facts = {"n_fields": kind.n_fields, "n_sequence_fields": kind.n_sequence_fields, "match_args": kind.__match_args__}
    facts |= {"n_unnamed_fields": kind.n_unnamed_fields, "module": kind.__module__, "has": has, "repr": repr(one)}
    facts |= {"asdict": one._asdict(), "tuple": isinstance(one, tuple), "equal": one == tuple(range(kind.n_fields))}
    facts |= {"travels": _travels(one), "fields": [getattr(one, name) for name in kind.__match_args__]}
    facts |= {"refuses": [_refusal(kind, bad) for bad in ((), (1,), 5)], "doc": kind.__doc__}
    return facts | {"assigned": _assigned(one, kind.__match_args__[0])}


def _travels(one: Any) -> str:
    import pickle

    try:
        return f"pickled as {type(pickle.loads(pickle.dumps(one))).__name__}"  # noqa: S301 - that it cannot be is the point
    except Exception as error:
        return type(error).__name__


def _refusal(kind: Any, given: Any) -> str | None:
    try:
        kind(given)
    except Exception as error:
        return _said(error)
    return None


def _assigned(one: Any, name: str) -> str | None:
    try:
        setattr(one, name, 1)
    except Exception as error:
        return _said(error)
    return None


if __name__ == "__main__":
    import MetaTrader5

    table = json.load(sys.stdin)
    print(json.dumps({"surface": surface(MetaTrader5), "answers": answers(MetaTrader5, table)}))
