"""The shapes of the answers, for OpenAPI and for tests. Bodies are rendered by the board; these models describe them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

CODES = "late_bar | source_away | market_closed | model_missing | data_refused | forecast_failed | forecaster_away"
SIGNAL_CODES = "no_gate | edge_below_spread | rollover | stale | market_closed | no_model"


class Described(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SkillCardBody(Described):
    target: str = Field(description="rv24: realised volatility of 24 bars; r24: return; sign24: direction")
    metric: str = Field(description="qlike | pinball | log_loss | auc")
    baseline: str
    value: float | None = Field(description="1 - loss / baseline loss; for auc the AUC; null with a reason")
    t_statistic: float | None = Field(description="HAC t of the loss difference; negative: better than the baseline")
    n: int
    period_from: str | None
    period_to: str | None
    passed_gate: bool
    live_coverage80: float | None = Field(description="share of this model's live outcomes inside the 80 % interval")
    live_n: int
    live_since: str | None = Field(description="as-of of this model's first forecast that is counted")
    reason: str
    live_value: float | None = Field(
        description="1 - loss / baseline loss of this model's live outcomes; null with live_reason"
    )
    live_t: float | None = Field(description="HAC t of the live loss difference; negative: better than the baseline")
    live_baseline: str = Field(description="har_how | base_rate: recorded beside each forecast")
    live_reason: str
    in_words: str = ""


class HorizonBody(Described):
    bars: int
    target_time: str
    volatility: float | None = Field(description="standard deviation of the log-return over the horizon")
    volatility_ratio: float | None = Field(description="against this symbol's usual level")
    quantiles: dict[str, float] | None = Field(description="log-return at 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95")
    price_quantiles: dict[str, float] | None
    p_up: float | None
    skill: list[SkillCardBody]
    reason: str


class ForecastBody(Described):
    symbol: str
    timeframe: str
    as_of: str = Field(description="close of the newest bar used, UTC")
    last_close: float
    horizons: list[HorizonBody]
    model_id: str
    data_version: str
    made_at: str
    market: str = Field(description="simulated | recorded | mt5 | http")
    stale: bool = Field(description="the next bar is overdue; judged when this was sent")
    reason: str
    reason_code: str = Field(description=f"'' or {CODES}")
    market_open: bool
    next_open: str | None = Field(description="when a closed market opens; null while it is open")
    next_bar_due: str
    skill: list[SkillCardBody]
    data_age_seconds: int = Field(description="market seconds since as_of")
    served_at: str


class ForecastsBody(Described):
    timeframe: str
    count: int
    missing: dict[str, str] = Field(description="symbol -> why it has no forecast")
    missing_codes: dict[str, str] = Field(description=f"the same as one of {CODES}")
    forecasts: list[ForecastBody]
    served_at: str


class SignalBody(Described):
    symbol: str
    timeframe: str
    as_of: str
    side: Literal["buy", "sell", "none"]
    horizon_bars: int
    expected_edge_bp: float | None = Field(description="net of spread, basis points")
    spread_bp: float | None
    confidence: float | None
    reason: str
    model_id: str
    stale: bool
    reason_code: str = Field(description=f"'' for a side, else {SIGNAL_CODES}")


class SignalsBody(Described):
    timeframe: str
    market: str
    signals: list[SignalBody]
    skill: list[SkillCardBody]
    missing: dict[str, str] = Field(description="symbol -> why it has no forecast, and so no signal")
    missing_codes: dict[str, str]
    served_at: str


class BarsBody(Described):
    symbol: str
    timeframe: str
    market: str
    columns: list[str]
    bars: list[list[Any]] = Field(description="closed bars, oldest first, as `columns`")
    served_at: str


class HistoryBody(Described):
    symbol: str
    timeframe: str
    market: str
    count: int
    forecasts: list[dict[str, Any]] = Field(description="newest first; outcomes are null until they are known")
    served_at: str


class SkillBody(Described):
    timeframe: str
    market: str
    model_id: str
    skill: list[SkillCardBody]
    served_at: str


class ModelBody(Described):
    symbol: str
    timeframe: str
    market: str
    model: dict[str, Any] = Field(description="the champion's identity card: id, kind, data version, gate, skill")
    served_at: str


class StatusBody(Described):
    version: str
    market: str
    simulated: bool
    speed: float
    market_time: str
    market_open: bool
    next_open: str | None
    symbols: list[str]
    timeframes: list[str]
    ready: bool
    reason: str
    board_version: int
    forecasts: int
    stale: list[str]
    conditions: dict[str, str] = Field(description="series that is not well -> its reason_code")
    models: dict[str, str]
    listeners: int
    source: dict[str, Any] = Field(description="as the forecaster reports it")
    served_at: str


class Health(Described):
    status: str


class KeyBody(Described):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str = Field(description="the public key, base64url")
    kid: str
    alg: Literal["EdDSA"]
    use: Literal["sig"]


class KeySetBody(Described):
    keys: list[KeyBody] = Field(description="newest first; the first one signs")


class ProblemBody(BaseModel):
    """RFC 9457. `hint` says what to do; some problems carry more members, such as `served`."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
    hint: str
    instance: str
    request_id: str


_SKILL = {
    "target": "rv24",
    "metric": "qlike",
    "baseline": "HAR + hour-of-week",
    "value": 0.031,
    "t_statistic": -4.2,
    "n": 5712,
    "period_from": "2019-03-06T00:00:00Z",
    "period_to": "2020-03-03T00:00:00Z",
    "passed_gate": True,
    "live_coverage80": 0.807,
    "live_n": 410,
    "live_since": "2026-01-05T09:00:00Z",
    "reason": "",
    "live_value": 0.024,
    "live_t": -1.3,
    "live_baseline": "har_how",
    "live_reason": "",
    "in_words": "Volatility, next 24 bars: 3.1% better than HAR + hour-of-week by QLIKE (t −4.2, n = 5,712).",
}
_SERVED = {"served_at": "2020-03-03T12:00:21Z"}
_FORECAST = {
    "symbol": "EURUSD",
    "timeframe": "H1",
    "as_of": "2020-03-03T12:00:00Z",
    "last_close": 1.11342,
    "horizons": [
        {
            "bars": 24,
            "target_time": "2020-03-04T12:00:00Z",
            "volatility": 0.00521,
            "volatility_ratio": 1.18,
            "quantiles": {
                "0.05": -0.00842,
                "0.1": -0.00641,
                "0.25": -0.00318,
                "0.5": 0.0,
                "0.75": 0.0032,
                "0.9": 0.00644,
                "0.95": 0.00847,
            },
            "price_quantiles": {
                "0.05": 1.10408,
                "0.1": 1.1063,
                "0.25": 1.10988,
                "0.5": 1.11342,
                "0.75": 1.11699,
                "0.9": 1.12061,
                "0.95": 1.12289,
            },
            "p_up": 0.503,
            "skill": [_SKILL],
            "reason": "",
        }
    ],
    "model_id": "h1-2f9c64e1aa07b35d",
    "data_version": "bars@412",
    "made_at": "2026-11-20T09:14:03Z",
    "market": "recorded",
    "stale": False,
    "reason": "",
    "reason_code": "",
    "market_open": True,
    "next_open": None,
    "next_bar_due": "2020-03-03T13:00:00Z",
    "skill": [_SKILL],
    "data_age_seconds": 21,
} | _SERVED
_SIGNAL = {
    "symbol": "EURUSD",
    "timeframe": "H1",
    "as_of": "2020-03-03T12:00:00Z",
    "side": "none",
    "horizon_bars": 24,
    "expected_edge_bp": None,
    "spread_bp": 1.3,
    "confidence": None,
    "reason": "No edge found: no direction target passed the gate.",
    "model_id": "h1-2f9c64e1aa07b35d",
    "stale": False,
    "reason_code": "no_gate",
}
_NONE_MISSING: dict[str, dict[str, str]] = {"missing": {}, "missing_codes": {}}
_HEAD = {"symbol": "EURUSD", "timeframe": "H1", "market": "recorded"}

EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    ForecastBody: _FORECAST,
    ForecastsBody: {"timeframe": "H1", "count": 1, **_NONE_MISSING, "forecasts": [_FORECAST]} | _SERVED,
    SignalsBody: {"timeframe": "H1", "market": "recorded", "signals": [_SIGNAL], "skill": [_SKILL], **_NONE_MISSING}
    | _SERVED,
    BarsBody: _HEAD
    | {
        "columns": ["close_time", "open", "high", "low", "close"],
        "bars": [["2020-03-03T12:00:00Z", 1.1131, 1.11377, 1.11288, 1.11342]],
    }
    | _SERVED,
    HistoryBody: _HEAD
    | {
        "count": 1,
        "forecasts": [{"as_of": "2020-03-03T11:00:00Z", "horizon_bars": 24, "model_id": "h1-2f9c64e1aa07b35d"}],
    }
    | _SERVED,
    SkillBody: {"timeframe": "H1", "market": "recorded", "model_id": "h1-2f9c64e1aa07b35d", "skill": [_SKILL]}
    | _SERVED,
    ModelBody: _HEAD
    | {"model": {"id": "h1-2f9c64e1aa07b35d", "kind": "stack", "timeframe": "H1", "data_version": "bars@380"}}
    | _SERVED,
    StatusBody: {
        "version": "0.1.0",
        "market": "recorded",
        "simulated": False,
        "speed": 60.0,
        "market_time": "2020-03-03T12:00:21Z",
        "market_open": True,
        "next_open": None,
        "symbols": ["EURUSD"],
        "timeframes": ["H1"],
        "ready": True,
        "reason": "",
        "board_version": 17,
        "forecasts": 1,
        "stale": [],
        "conditions": {},
        "models": {"H1": "h1-2f9c64e1aa07b35d"},
        "listeners": 1,
        "source": {"source": {"connected": True, "reason": ""}, "transport": "ray"},
    }
    | _SERVED,
    Health: {"status": "alive"},
    KeySetBody: {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid": "20261124T193557Z-1f0c7a2b",
                "alg": "EdDSA",
                "use": "sig",
            }
        ]
    },
}
_PROBLEM_EXAMPLES = {
    401: (
        "unauthorized",
        "Not authenticated",
        "No token was sent.",
        "Send the header `Authorization: Bearer TOKEN`; `lstmc token issue` prints a token.",
    ),
    403: (
        "insufficient-scope",
        "The token does not allow this",
        "The token lacks the scope 'signals'.",
        "Issue one that has it: `lstmc token issue --scopes read,signals`.",
    ),
    404: ("unknown-symbol", "Unknown symbol", "'EURXXX' is not served here.", "Served: EURUSD, GBPUSD."),
    422: ("unknown-timeframe", "Unknown timeframe", "'H7' is not served here.", "Served: H1."),
    429: (
        "too-many-requests",
        "Too many requests",
        "This subject may ask 60 times a minute.",
        "Wait as long as Retry-After says, or read /api/v1/stream, which counts once.",
    ),
    503: (
        "no-champion",
        "No model yet",
        "No model has been promoted for H1 yet.",
        "The first one follows as soon as history is loaded: watch /api/v1/status.",
    ),
}


def documented(model: type[BaseModel], *problems: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: its answer with an example, and the problems it can meet."""
    described: dict[int | str, dict[str, Any]] = {
        200: {"model": model, "content": {"application/json": {"example": EXAMPLES[model]}}}
    }
    for status in problems:
        described[status] = {
            "description": _PROBLEM_EXAMPLES[status][1],
            "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA, "example": problem_example(status)}},
        }
    return described


def problem_example(status: int) -> dict[str, Any]:
    code, title, detail, hint = _PROBLEM_EXAMPLES[status]
    return {
        "type": f"urn:lstmc:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "hint": hint,
        "instance": "/api/v1/…",
        "request_id": "5f0c…",
    }


_PROBLEM_SCHEMA = ProblemBody.model_json_schema()
