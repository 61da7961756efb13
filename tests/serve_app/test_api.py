"""Every route answers in its documented shape; every error is a problem that says what to do."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from market.errors import MarketUnavailable
from serve_app.api import make_api
from serve_app.headers import CONTENT_SECURITY_POLICY
from serve_app.lookups import Lookups
from serve_app.rate_limit import RateLimiter
from serve_app.responses import (
    BarsBody,
    ForecastBody,
    ForecastsBody,
    HistoryBody,
    ModelBody,
    ProblemBody,
    SignalsBody,
    SkillBody,
    StatusBody,
)

SHAPES = {
    "/api/v1/predictions/EURUSD": ForecastBody,
    "/api/v1/predictions/eurusd?timeframe=h1": ForecastBody,
    "/api/v1/forex/all": ForecastsBody,
    "/api/v1/signals": SignalsBody,
    "/api/v1/bars/EURUSD?limit=5": BarsBody,
    "/api/v1/skill": SkillBody,
    "/api/v1/models/EURUSD": ModelBody,
    "/api/v1/predictions/EURUSD/history": HistoryBody,
    "/api/v1/status": StatusBody,
}


@pytest.mark.parametrize(("path", "shape"), SHAPES.items())
def test_a_route_answers_in_its_documented_shape(desk: Any, path: str, shape: Any) -> None:
    answer = desk.get(path)
    assert answer.status_code == 200, answer.text
    shape.model_validate(answer.json())


def test_a_forecast_carries_its_provenance(desk: Any) -> None:
    body = desk.get("/api/v1/predictions/EURUSD").json()
    assert body["market"] == "simulated"
    assert (body["model_id"], body["data_version"]) == ("h1-2f9c64e1aa07b35d", "bars@412")
    assert (body["as_of"], body["next_bar_due"]) == ("2026-03-04T12:00:00Z", "2026-03-04T13:00:00Z")
    assert (body["stale"], body["reason"], body["data_age_seconds"]) == (False, "", 20)
    assert body["served_at"].endswith("Z")
    assert [h["bars"] for h in body["horizons"]] == [1, 24]
    assert (
        body["skill"][0]["in_words"]
        == "Volatility, next 24 bars: 3.1% better than HAR + hour-of-week by QLIKE (t −4.2, n = 5,712)."
    )


def test_all_lists_what_is_missing_and_why(make_desk: Any) -> None:
    desk = make_desk()
    desk.market.symbols = ("EURUSD", "GBPUSD")
    body = desk.fill().get("/api/v1/forex/all").json()
    assert [f["symbol"] for f in body["forecasts"]] == ["EURUSD", "GBPUSD"]
    assert body["missing"] == {"USDJPY": "No forecast has been made for USDJPY H1 yet."}


def test_signals_are_none_unless_there_is_an_edge(desk: Any) -> None:
    signals = {s["symbol"]: s for s in desk.get("/api/v1/signals").json()["signals"]}
    assert {code: s["side"] for code, s in signals.items()} == {"EURUSD": "none", "GBPUSD": "buy", "USDJPY": "none"}
    assert "no edge found" in signals["EURUSD"]["reason"]


def test_a_stale_signal_is_no_side_to_take(desk: Any) -> None:
    desk.clock.advance(hours=2)
    signal = next(s for s in desk.get("/api/v1/signals").json()["signals"] if s["symbol"] == "GBPUSD")
    assert (signal["side"], signal["stale"], signal["expected_edge_bp"]) == ("none", True, None)
    assert "stale" in signal["reason"]


def test_bars_are_the_newest_oldest_first(desk: Any) -> None:
    body = desk.get("/api/v1/bars/EURUSD?limit=3").json()
    assert body["columns"] == ["close_time", "open", "high", "low", "close"]
    assert [row[0] for row in body["bars"]] == ["2026-03-04T10:00:00Z", "2026-03-04T11:00:00Z", "2026-03-04T12:00:00Z"]


def test_a_lookup_that_cannot_look_is_a_503(desk: Any) -> None:
    async def history(*_: Any) -> list[dict[str, Any]]:
        raise MarketUnavailable("The ledger is away.", hint="Try again.")

    app = make_api(desk.settings, desk.board, RateLimiter(60), desk.clock, Lookups(history))
    answer = type(desk.client)(app).get("/api/v1/predictions/EURUSD/history", headers=desk.bearer())
    assert (answer.status_code, answer.json()["hint"]) == (503, "Try again.")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("path", "status", "kind", "hint"),
    [
        ("/api/v1/predictions/EURXXX", 404, "unknown-symbol", "Served: EURUSD, GBPUSD, USDJPY."),
        ("/api/v1/predictions/XAUUSD", 404, "unknown-symbol", "Served: EURUSD, GBPUSD, USDJPY."),
        ("/api/v1/bars/%3Cscript%3E", 404, "unknown-symbol", "Served: EURUSD, GBPUSD, USDJPY."),
        ("/api/v1/predictions/EURUSD?timeframe=H7", 422, "unknown-timeframe", "Served: H1, M15."),
        ("/api/v1/predictions/EURUSD?timeframe=D1", 422, "unknown-timeframe", "Served: H1, M15."),
        ("/api/v1/signals?timeframe=", 422, "unknown-timeframe", "Served: H1, M15."),
        ("/api/v1/bars/EURUSD?limit=many", 422, "bad-input", "/openapi.json describes every parameter."),
        ("/api/v1/bars/EURUSD?limit=0", 422, "bad-input", "/openapi.json describes every parameter."),
        (
            "/api/v1/predictions/EURUSD?timeframe=M15",
            503,
            "no-champion",
            "The first one follows as soon as history is loaded: watch /api/v1/status.",
        ),
        (
            "/api/v1/skill?timeframe=M15",
            503,
            "no-champion",
            "The first one follows as soon as history is loaded: watch /api/v1/status.",
        ),
        ("/api/v1/bars/EURUSD?timeframe=M15", 503, "no-bars", "History is being loaded: watch /api/v1/status."),
        ("/api/v1/nothing", 404, "not-found", "/openapi.json lists all addresses."),
        ("/static/../api.py", 404, "not-found", "/openapi.json lists all addresses."),
        ("/static/secrets", 404, "not-found", "Open / instead."),
    ],
)
def test_an_error_says_what_to_do(desk: Any, path: str, status: int, kind: str, hint: str) -> None:
    answer = desk.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = ProblemBody.model_validate(answer.json())
    assert (problem.type, problem.hint, problem.status) == (f"urn:lstmc:problem:{kind}", hint, status)
    assert problem.request_id == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)


def test_before_the_first_update_everything_says_starting(make_desk: Any) -> None:
    desk = make_desk()
    for path in ("/api/v1/predictions/EURUSD", "/api/v1/forex/all", "/api/v1/signals", "/api/v1/skill", "/readyz"):
        answer = desk.get(path)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:lstmc:problem:starting"), path
        assert int(answer.headers["retry-after"]) > 0
    assert desk.get("/api/v1/status").json()["ready"] is False
    assert desk.get("/healthz").status_code == 200


def test_a_champion_without_a_forecast_is_another_reason(make_desk: Any) -> None:
    desk = make_desk()
    desk.board.apply(desk.market.update(with_forecasts=False))
    answer = desk.get("/api/v1/predictions/EURUSD")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:lstmc:problem:no-forecast")
    assert desk.get("/readyz").status_code == 503


def test_ready_once_there_are_forecasts(desk: Any) -> None:
    assert desk.client.get("/readyz").json() == {"status": "ready"}
    assert desk.get("/api/v1/status").json()["source"]["transport"] == "ray"


def test_another_method_is_a_problem(desk: Any) -> None:
    answer = desk.client.post("/api/v1/signals", headers=desk.bearer())
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.json()["type"] == "urn:lstmc:problem:method-not-allowed"


def test_a_fault_inside_is_a_500_without_its_text(desk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    desk.board.update.forecasts.clear()  # the board's own book-keeping is now wrong
    desk.clock.advance(hours=2)
    answer = desk.get("/api/v1/predictions/EURUSD")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "KeyError" not in answer.text
    assert "KeyError" in capsys.readouterr().out  # the log has it
    assert answer.headers["x-frame-options"] == "DENY"


def test_request_ids_are_kept_when_harmless(desk: Any) -> None:
    assert desk.get("/healthz", **{"X-Request-Id": "desk-7.a"}).headers["x-request-id"] == "desk-7.a"
    for bad in ("a b", "x" * 65, "{}"):
        assert desk.get("/healthz", **{"X-Request-Id": bad}).headers["x-request-id"] != bad


def test_an_unchanged_answer_is_a_304(desk: Any) -> None:
    for path in ("/api/v1/predictions/EURUSD", "/api/v1/forex/all", "/api/v1/signals", "/api/v1/bars/EURUSD"):
        first = desk.get(path)
        desk.clock.advance(seconds=5)
        again = desk.get(path, **{"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path
        assert "ratelimit-remaining" in again.headers
    desk.board.apply(desk.market.close_a_bar())
    assert desk.get("/api/v1/predictions/EURUSD", **{"If-None-Match": first.headers["etag"]}).status_code == 200


def test_a_stale_answer_is_no_304(desk: Any) -> None:
    first = desk.get("/api/v1/predictions/EURUSD")
    desk.clock.advance(hours=3)
    again = desk.get("/api/v1/predictions/EURUSD", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.json()["stale"]) == (200, True)


def test_cors_only_for_the_named_origins(make_desk: Any) -> None:
    desk = make_desk(cors_origins=("https://desk.example",)).fill()
    good = desk.get("/api/v1/skill", Origin="https://desk.example")
    bad = desk.get("/api/v1/skill", Origin="https://evil.example")
    assert good.headers["access-control-allow-origin"] == "https://desk.example"
    assert "access-control-allow-origin" not in bad.headers


def test_without_cors_origins_no_origin_is_allowed(desk: Any) -> None:
    assert "access-control-allow-origin" not in desk.get("/api/v1/skill", Origin="https://desk.example").headers


def test_the_page_and_its_files_come_from_here(desk: Any) -> None:
    page = desk.client.get("/")
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http://" not in page.text
    assert "https://" not in page.text
    names = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert any("plotly" in name for name in names)
    for name in names:
        answer = desk.client.get(name, headers={"Accept-Encoding": "gzip"})
        assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip"), name
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert desk.client.get(name, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
        assert ("immutable" in answer.headers["cache-control"]) == ("plotly" in name)


@pytest.mark.parametrize(
    ("source", "simulated"), [({"simulated": True}, True), ({"simulated": False}, False), ({}, False)]
)
def test_a_simulated_market_behind_a_data_api_is_called_simulated(
    make_desk: Any, source: dict[str, Any], simulated: bool
) -> None:
    desk = make_desk(market="http", data_api_url="http://10.8.0.2:8001")
    update = desk.market.update()
    desk.board.apply(replace(update, status=update.status | {"source": source}))
    assert desk.get("/api/v1/status").json()["simulated"] is simulated
