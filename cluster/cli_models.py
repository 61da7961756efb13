"""`lstmc models ...`: which models there are, which one serves, and how to change that by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.console import Json, example, new_app, rows, settings, show
from market.errors import NoChampion

app = new_app()


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
