"""An example of every answer and every problem, for OpenAPI. Tests hold them against the shapes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from serve_app.board import BAR_COLUMNS
from serve_app.on_demand import NOT_LIVE, UNRECORDED
from serve_app.responses import (
    BarsBody,
    ForecastsBody,
    Health,
    HistoryBody,
    KeySetBody,
    ModelBody,
    PastForecastBody,
    PredictionBody,
    SignalsBody,
    SkillBody,
    StatusBody,
)

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
_FORECAST: dict[str, Any] = {
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
_PAST = {name: value for name, value in _FORECAST.items() if name in PastForecastBody.model_fields} | {
    "seq": 411,
    "as_of": "2020-03-02T12:00:00Z",
    "horizons": [_FORECAST["horizons"][0] | {"target_time": "2020-03-03T12:00:00Z"}],
    "recorded_at": "2026-11-20T09:14:03Z",
    "recorded_market_time": "2020-03-02T12:00:21Z",
    "recorded_late": False,
    "outcomes": {
        "24": {
            "bars": 24,
            "closed_at": "2020-03-03T12:00:00Z",
            "close": 1.1171,
            "return": 0.00331,
            "volatility": 0.00604,
            "inside80": True,
            "inside90": True,
        }
    },
}
_MODEL = {
    "id": "h1-2f9c64e1aa07b35d",
    "timeframe": "H1",
    "kind": "stack",
    "symbols": ["EURUSD"],
    "horizons": [24],
    "trained_from": "2017-01-02T00:00:00Z",
    "trained_until": "2020-03-03T00:00:00Z",
    "data_version": "bars@380",
    "spec_digest": "9d0c41aa",
    "skill": [_SKILL],
    "gate": {
        "rv24": {
            "promoted": True,
            "why": "rv24 promoted: 3.1% qlike skill against HAR + hour-of-week (t = -4.2).",
            "baseline": "HAR + hour-of-week",
            "loss": 0.281,
            "baseline_loss": 0.29,
            "skill": 0.031,
            "t": -4.2,
            "served_by": "stack",
        }
    },
    "code_commit": "b7a8e4b",
    "lock_hash": "61f3c0de",
    "made_at": "2026-11-20T09:00:00Z",
    "champion_since": "2026-11-20T09:02:11Z",
    "champion_why": "Promoted: rv24 passed.",
    "live": [
        {
            "target": "rv24",
            "metric": "qlike",
            "baseline": "har_how",
            "closes": 410,
            "loss": 0.283,
            "baseline_loss": 0.291,
            "t": -2.1,
            "limit": 2.9,
            "worse": False,
            "known_until": "2020-03-02T11:00:00Z",
            "reason": "",
        }
    ],
}
_HEAD = {"symbol": "EURUSD", "timeframe": "H1", "market": "recorded"}

_NONE_MISSING: dict[str, dict[str, str]] = {"missing": {}, "missing_codes": {}}

EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    PredictionBody: _FORECAST,
    ForecastsBody: {"timeframe": "H1", "count": 1, **_NONE_MISSING, "forecasts": [_FORECAST]} | _SERVED,
    SignalsBody: {"timeframe": "H1", "market": "recorded", "signals": [_SIGNAL], "skill": [_SKILL], **_NONE_MISSING}
    | _SERVED,
    BarsBody: _HEAD
    | {
        "columns": list(BAR_COLUMNS),
        "bars": [["2020-03-03T12:00:00Z", 1.1131, 1.11377, 1.11288, 1.11342]],
    }
    | _SERVED,
    HistoryBody: _HEAD
    | {
        "count": 1,
        "reason": "",
        "forecasts": [_PAST],
        "next": "/api/v1/predictions/EURUSD/history?timeframe=H1&limit=1&cursor=1583150400.411",
    }
    | _SERVED,
    SkillBody: {"timeframe": "H1", "market": "recorded", "model_id": "h1-2f9c64e1aa07b35d", "skill": [_SKILL]}
    | _SERVED,
    ModelBody: _HEAD | {"model": _MODEL} | _SERVED,
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

_UNJUDGED = _SKILL | NOT_LIVE
# Where there is another kind of answer beside the usual one.
OTHER_EXAMPLES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    PredictionBody: {
        "on_demand": _FORECAST
        | UNRECORDED
        | {
            "model_id": "h1-7c01d5b9e4a2f683",
            "horizons": [_FORECAST["horizons"][0] | {"skill": [_UNJUDGED]}],
            "skill": [_UNJUDGED],
        }
    }
}

PROBLEMS = {
    401: (
        "unauthorized",
        "Not authenticated",
        "No token was sent.",
        "Send the header `Authorization: Bearer TOKEN`; `lstmc token issue` prints a token.",
    ),
    400: (
        "malformed-address",
        "The address is malformed",
        "The address holds bytes that are not UTF-8.",
        "Percent-encode it as UTF-8; /openapi.json describes every parameter.",
    ),
    403: (
        "insufficient-scope",
        "The token does not allow this",
        "The token lacks the scope 'signals'.",
        "Issue one that has it: `lstmc token issue --scopes read,signals`.",
    ),
    404: ("unknown-symbol", "Unknown symbol", "'EURXXX' is not served here.", "Served: EURUSD, GBPUSD."),
    406: (
        "not-acceptable",
        "Not available in that form",
        "There is no image/png of this.",
        "Accept one of application/json, application/vnd.apache.arrow.stream, text/csv, or ask with format=json, arrow or csv.",
    ),
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
CSV = {
    BarsBody: "symbol,timeframe,market,close_time,open,high,low,close\nEURUSD,H1,recorded,2020-03-03T12:00:00Z,1.1131,1.11377,1.11288,1.11342\n",
    HistoryBody: "symbol,timeframe,market,seq,as_of,last_close,bars,target_time,volatility,…\nEURUSD,H1,recorded,411,2020-03-02T12:00:00Z,1.11342,24,2020-03-03T12:00:00Z,0.00521,…\n",
}


def problem_example(status: int) -> dict[str, Any]:
    code, title, detail, hint = PROBLEMS[status]
    return {
        "type": f"urn:lstmc:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "hint": hint,
        "instance": "/api/v1/…",
        "request_id": "5f0c…",
    }
