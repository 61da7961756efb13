"""`lstmc models ...`: which models there are, which one serves, and how to change that by hand."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.console import Json, comma_list, example, moment, new_app, note, rows, settings, show
from market.errors import InputError, LedgerError, NoChampion

app = new_app()
NAMED = 20  # differences that are printed in words; --json has all


def _registry() -> Any:
    from tuning.registry import Registry

    return Registry.of(settings())


def _champion_ids(registry: Any) -> set[str]:
    champions = [registry.champion_pointer_or_none(timeframe) for timeframe in settings().timeframes]
    return {pointer["id"] for pointer in champions if pointer is not None}


@app.command("list", epilog=example("lstmc models list"))
def list_(as_json: Json = False) -> None:
    """All models, newest first; the champion is marked. Those that are refused come last, with the reason."""
    registry = _registry()
    champions = _champion_ids(registry)
    models = [
        version.to_dict() | {"champion": version.id in champions, "signed_by": registry.signed_by(version.id)}
        for version in registry.list()
    ]
    models += [
        {"id": name, "champion": name in champions, "signed_by": None, "refused": error.message, "hint": error.hint}
        for name, error in registry.refused().items()
    ]
    show(models, as_json, lambda _: _list_words(models) if models else "no models yet")


def _list_words(models: list[dict[str, Any]]) -> str:
    sound = [m for m in models if m["signed_by"]]
    lines = [
        ["*" if m["champion"] else "", m["id"], m["timeframe"], m["kind"], len(m["symbols"]), m["trained_until"],
         m["signed_by"]]
        for m in sound
    ]  # fmt: skip
    table = rows(["", "id", "timeframe", "kind", "symbols", "trained until", "signed by"], lines)
    bad = [f"{'*' if m['champion'] else ' '} {m['refused']} {m['hint']}" for m in models if not m["signed_by"]]
    return "\n".join([*([table] if sound else []), *bad])


@app.command("show", epilog=example("lstmc models show h1-0123456789abcdef"))
def show_(
    model_id: Annotated[str | None, typer.Argument(help="Default: the champion of the first timeframe.")] = None,
    as_json: Json = False,
) -> None:
    """One model: who signed it, what it saw, what was measured out of sample, and how it was judged."""
    from tuning.bundle import read_report

    registry = _registry()
    version = registry.verified(model_id or _first_champion(registry))
    shown = version.to_dict() | {"signed_by": registry.signed_by(version.id)}
    show(shown | {"report": read_report(registry.path(version.id))}, as_json, _version_words)


def _first_champion(registry: Any) -> str:
    pointer = registry.champion_pointer(settings().timeframes[0])
    if pointer is None:
        raise NoChampion("There is no champion yet.", hint="`lstmc up` makes the first one as soon as history is in.")
    return str(pointer["id"])


def _version_words(version: dict[str, Any]) -> str:
    head = [[key, version[key] if not isinstance(version[key], list) else ", ".join(map(str, version[key]))]
            for key in ("id", "kind", "timeframe", "symbols", "horizons", "trained_from", "trained_until", "data_version", "spec_digest", "code_commit", "made_at", "signed_by")]  # fmt: skip
    cards = [
        [
            c["target"],
            c["metric"],
            c["baseline"],
            _figure(c["value"]),
            _figure(c["t_statistic"]),
            "passed" if c["passed_gate"] else "no",
        ]
        for c in version["skill"]
    ]
    gate = [
        [target, "yes" if verdict.get("promoted") else "no", verdict.get("why", "")]
        for target, verdict in version["gate"].items()
        if isinstance(verdict, dict)
    ]
    return "\n\n".join(
        [
            rows(["", ""], head).lstrip(),
            rows(["target", "metric", "baseline", "skill", "t", "gate"], cards),
            *_measured(version["report"].get("targets", {})),
            rows(["target", "promoted", "why"], gate),
        ]
    )


MEASURED = {  # heading -> key in report.json's targets
    "QLIKE": "qlike",
    "HAR+HOW": "qlike_har_how",
    "t": "t_har_how",
    "pinball skill": "pinball_skill",
    "cov80": "cov80",
    "cov90": "cov90",
    "AUC": "auc",
    "AUC ex rollover": "auc_ex_rollover",
    "gross bp": "gross_bp",
    "net bp": "net_bp",
}


def _measured(targets: dict[str, Any]) -> list[str]:
    """Two tables out of sample: figures per target, and per symbol."""
    if not targets:
        return []
    table = [[target, *(_plain(verdict.get(key)) for key in MEASURED.values())] for target, verdict in targets.items()]
    symbols = list(next(iter(targets.values()))["per_symbol"])
    by_symbol = [
        [symbol, *(_symbol_words(verdict["per_symbol"].get(symbol, {})) for verdict in targets.values())]
        for symbol in symbols
    ]
    heads = [f"{target} ({verdict['metric']} skill)" for target, verdict in targets.items()]
    return [rows(["measured", *MEASURED], table), rows(["per symbol", *heads], by_symbol)]


def _symbol_words(figures: dict[str, Any]) -> str:
    extra = [f"{name} {figures[name]:.3f}" for name in ("cov80", "auc") if figures.get(name) is not None]
    return ", ".join([_figure(figures.get("skill")), *extra])


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


@app.command(epilog=example('lstmc models promote h1-0123456789abcdef --why "checked by hand"'))
def promote(model_id: str, why: Annotated[str, typer.Option()] = "promoted by hand", as_json: Json = False) -> None:
    """Make a model the champion, once it has forecast the stored bars in a process of its own; the running cluster
    follows within seconds."""
    version = _registry().promote(model_id, why)
    show(
        {"champion": version.id, "timeframe": version.timeframe},
        as_json,
        lambda _: f"{version.id} is the champion of {version.timeframe}",
    )


@app.command(epilog=example("lstmc models rollback --timeframe H1"))
def rollback(timeframe: Annotated[str, typer.Option()] = "H1", as_json: Json = False) -> None:
    """Back to the champion before."""
    from market.timeframes import Timeframe

    version = _registry().rollback(Timeframe.parse(timeframe).value)
    show(
        {"champion": version.id, "timeframe": version.timeframe},
        as_json,
        lambda _: f"{version.id} is the champion of {version.timeframe} again",
    )


@app.command(epilog=example("lstmc models trust 0123456789abcdef.pem"))
def trust(
    file: Annotated[Path | None, typer.Argument(help="Another installation's public key (PEM). Default: list.")] = None,
    as_json: Json = False,
) -> None:
    """Load models that were signed with another installation's key, too; without FILE, whose are loaded."""
    keys = _registry().keys
    added = keys.trust(file) if file else None
    own = keys.own()
    found = [
        {"key": name, "own": name == own, "added": name == added, "file": str(keys.public_file(name))}
        for name in keys.trusted()
    ]
    lines = [[f["key"], "own" if f["own"] else "added" if f["added"] else "", f["file"]] for f in found]
    show(found, as_json, lambda _: rows(["key", "", "file"], lines) if found else "nothing has been signed here yet")


@app.command(
    epilog=example("lstmc models replay h1-0123456789abcdef --from 2020-02-03 --to 2020-02-07 --out replay.jsonl")
)
def replay(
    model_id: str,
    since: Annotated[str, typer.Option("--from", help="First as-of close, UTC.")],
    until: Annotated[str, typer.Option("--to", help="Last as-of close, UTC.")],
    symbols: Annotated[str | None, typer.Option(help="Comma-separated; default: all that the model knows.")] = None,
    data_version: Annotated[
        str | None, typer.Option(help="Bars as they were, as bars@12; default: the newest.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write one forecast a line.")] = None,
    as_json: Json = False,
) -> None:
    """A stored model on stored bars once more, compared with what the ledger says it forecast when it served."""
    from market.bar_store import BarStore
    from market.symbols import symbols as known_symbols
    from tuning.replay import bars_of, line
    from tuning.replay import replay as replayed

    first, last = moment(since, "--from"), moment(until, "--to")
    if first > last:
        raise InputError("--from is after --to.", hint="Write --from 2020-02-03 --to 2020-02-07.")
    bundle, store = _registry().load(model_id), BarStore(settings().bars_path)
    version = data_version or store.data_version()
    asked = [symbol.code for symbol in known_symbols(comma_list(symbols) or [])]
    made = list(replayed(bundle, bars_of(store, bundle, asked, last, version), first, last))
    text = "".join(line(forecast) + "\n" for forecast in made)
    said = {
        "model_id": model_id,
        "data_version": version,
        "count": len(made),
        "sha256": sha256(text.encode()).hexdigest(),
        "ledger": _compared(made, model_id, bundle.version.timeframe, first, last),
    }
    if out:
        out.write_text(text)
    elif as_json:
        said["forecasts"] = made
    show(said, as_json, _replay_words)


def _compared(made: list[dict[str, Any]], model_id: str, timeframe: str, first: Any, last: Any) -> dict[str, Any]:
    """How many of the replayed forecasts the ledger has, and which of those are not the same."""
    from actors.prediction_ledger import PredictionLedger
    from tuning.replay import line, own_words

    try:
        ledger = PredictionLedger.of(settings())
        try:
            rows = ledger.recorded(model_id, timeframe, first, last)
        finally:
            ledger.close()
    except LedgerError as error:
        note(f"not compared: {error}")
        return {"recorded": None, "same": None, "different": [], "reason": error.message}
    known = {(row["symbol"], row["as_of"]): row for row in rows}
    both = [(one, known[key]) for one in made if (key := (one["symbol"], one["as_of"])) in known]
    different = [
        {"symbol": one["symbol"], "as_of": one["as_of"], "served_from": row["data_version"]}
        for one, row in both
        if line(one) != line(one | {"horizons": [own_words(horizon) for horizon in row["horizons"]]})
    ]
    return {"recorded": len(both), "same": len(both) - len(different), "different": different, "reason": ""}


def _replay_words(said: dict[str, Any]) -> str:
    ledger = said["ledger"]
    lines = [f"{said['count']} forecasts of {said['model_id']} from {said['data_version']}, sha256 {said['sha256']}"]
    if ledger["recorded"] is not None:
        lines.append(f"{ledger['recorded']} of them are in the ledger, {ledger['same']} are the same")
    lines += [
        f"differs: {d['symbol']} {d['as_of']}, served from {d['served_from']} (its bars were revised since?)"
        for d in ledger["different"][:NAMED]
    ]
    return "\n".join(lines)
