"""`lstmc models ...`: which models there are, which one serves, and how to change that by hand."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.console import Json, example, new_app, rows, settings, show

app = new_app()


def _registry() -> Any:
    from tuning.registry import Registry

    return Registry(settings().registry_path)


def _champion_ids(registry: Any) -> set[str]:
    champions = [registry.champion(timeframe) for timeframe in settings().timeframes]
    return {version.id for version in champions if version is not None}


@app.command("list", epilog=example("lstmc models list"))
def list_(as_json: Json = False) -> None:
    """All models, newest first; the champion is marked."""
    registry = _registry()
    champions = _champion_ids(registry)
    models = [version.to_dict() | {"champion": version.id in champions} for version in registry.list()]
    lines = [
        ["*" if m["champion"] else "", m["id"], m["timeframe"], m["kind"], len(m["symbols"]), m["trained_until"]]
        for m in models
    ]
    show(
        models,
        as_json,
        lambda _: (
            rows(["", "id", "timeframe", "kind", "symbols", "trained until"], lines) if models else "no models yet"
        ),
    )


@app.command("show", epilog=example("lstmc models show h1-0123456789abcdef"))
def show_(model_id: str, as_json: Json = False) -> None:
    """One model: what it saw and how it was judged."""
    version = _registry().get(model_id).to_dict()
    show(version, as_json, _version_words)


def _version_words(version: dict[str, Any]) -> str:
    head = [[key, version[key] if not isinstance(version[key], list) else ", ".join(map(str, version[key]))]
            for key in ("id", "kind", "timeframe", "symbols", "horizons", "trained_from", "trained_until", "data_version", "spec_digest", "code_commit", "made_at")]  # fmt: skip
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
            rows(["target", "promoted", "why"], gate),
        ]
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


@app.command(epilog=example('lstmc models promote h1-0123456789abcdef --why "checked by hand"'))
def promote(model_id: str, why: Annotated[str, typer.Option()] = "promoted by hand", as_json: Json = False) -> None:
    """Make a model the champion; the running cluster follows within seconds."""
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
