"""The shapes of the answers, for OpenAPI and for tests. Bodies are rendered by the board; these models describe them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

UtcTime = Annotated[str, Field(pattern="Z$", json_schema_extra={"format": "date-time"})]
Quantiles = dict[str, float]
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
    period_from: UtcTime | None
    period_to: UtcTime | None
    passed_gate: bool
    live_coverage80: float | None = Field(description="share of this model's live outcomes inside the 80 % interval")
    live_n: int
    live_since: UtcTime | None = Field(description="as-of of this model's first forecast that is counted")
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
    target_time: UtcTime
    volatility: float | None = Field(description="standard deviation of the log-return over the horizon")
    volatility_ratio: float | None = Field(description="against this symbol's usual level")
    quantiles: Quantiles | None = Field(description="log-return at 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95")
    price_quantiles: Quantiles | None
    p_up: float | None
    skill: list[SkillCardBody]
    reason: str


class ForecastBody(Described):
    symbol: str
    timeframe: str
    as_of: UtcTime = Field(description="close of the newest bar used, UTC")
    last_close: float
    horizons: list[HorizonBody]
    model_id: str
    data_version: str
    made_at: UtcTime
    market: str = Field(description="simulated | recorded | mt5 | http")
    stale: bool = Field(description="the next bar is overdue; judged when this was sent")
    reason: str
    reason_code: str = Field(description=f"'' or {CODES}")
    market_open: bool
    next_open: UtcTime | None = Field(description="when a closed market opens; null while it is open")
    next_bar_due: UtcTime
    skill: list[SkillCardBody]
    data_age_seconds: int = Field(description="market seconds since as_of")
    served_at: UtcTime


class NoSignalBody(Described):
    side: Literal["none"]
    reason_code: Literal["on_demand"]
    reason: str


class PredictionBody(ForecastBody):
    """A forecast as the forecaster publishes it has none of these three."""

    on_demand: bool = Field(False, description="made for this question, by the model that it names")
    recorded: bool = Field(True, description="false: not in the ledger, so live figures are null with live_reason")
    signal: NoSignalBody | None = Field(None, description="only of a forecast on demand, which never gives one")


class ForecastsBody(Described):
    timeframe: str
    count: int
    missing: dict[str, str] = Field(description="symbol -> why it has no forecast")
    missing_codes: dict[str, str] = Field(description=f"the same as one of {CODES}")
    forecasts: list[ForecastBody]
    served_at: UtcTime


class SignalBody(Described):
    symbol: str
    timeframe: str
    as_of: UtcTime
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
    served_at: UtcTime


class BarsBody(Described):
    symbol: str
    timeframe: str
    market: str
    columns: list[str]
    bars: list[Annotated[list[UtcTime | float], Field(min_length=5, max_length=5)]] = Field(
        description="closed, oldest first, as `columns`"
    )
    served_at: UtcTime


class OutcomeBody(Described):
    bars: int
    closed_at: UtcTime
    close: float
    log_return: float = Field(alias="return", description="log-return over the horizon")
    volatility: float = Field(description="root of the sum of squared log-returns")
    inside80: bool | None = Field(description="inside the 80 % interval; null: the forecast had none")
    inside90: bool | None


class PastForecastBody(Described):
    seq: int = Field(description="its row in the ledger")
    symbol: str
    timeframe: str
    as_of: UtcTime
    last_close: float
    horizons: list[HorizonBody]
    model_id: str
    data_version: str
    made_at: UtcTime
    market: str
    stale: bool
    reason: str
    recorded_at: UtcTime | None = Field(None, description="wall clock; null in what an older version wrote")
    recorded_market_time: UtcTime | None = None
    recorded_late: bool | None = Field(None, description="its first horizon had ended by then")
    spooled_at: UtcTime | None = Field(None, description="since when it had waited for the ledger's database")
    spooled_market_time: UtcTime | None = None
    outcomes: dict[str, OutcomeBody] = Field(description="by horizon in bars; without those that are not known yet")


class HistoryBody(Described):
    symbol: str
    timeframe: str
    market: str
    count: int
    reason: str = Field(description="why there are none")
    forecasts: list[PastForecastBody] = Field(description="newest first")
    next: str | None = Field(description="address of the next page; null: this is the last one")
    served_at: UtcTime


class SkillBody(Described):
    timeframe: str
    market: str
    model_id: str
    skill: list[SkillCardBody]
    served_at: UtcTime


class VerdictBody(Described):
    promoted: bool
    why: str
    baseline: str
    loss: float | None
    baseline_loss: float | None
    skill: float | None = Field(description="1 - loss / baseline loss")
    t: float | None = Field(description="negative: better than the baseline")
    served_by: str = Field(description="the family whose forecasts are served")


class LiveVerdictBody(Described):
    target: str
    metric: str
    baseline: str
    closes: int = Field(description="as-of closes whose outcomes are known")
    loss: float | None = Field(description="mean over the window of the newest look; null before the first")
    baseline_loss: float | None
    t: float | None = Field(description="of loss minus baseline loss; positive: worse")
    limit: float | None = Field(description="of t, beyond which the model is taken down")
    worse: bool
    known_until: UtcTime | None
    reason: str


class RefusedModelBody(Described):
    id: str
    reason: str
    since: UtcTime


class ModelCardBody(Described):
    id: str = Field(description="content hash of the bundle")
    timeframe: str
    kind: str = Field(description="econometric | stack")
    symbols: list[str]
    horizons: list[int] = Field(description="in bars")
    trained_from: UtcTime
    trained_until: UtcTime
    data_version: str
    spec_digest: str
    skill: list[SkillCardBody]
    gate: dict[str, VerdictBody] = Field(description="by target")
    code_commit: str
    lock_hash: str
    made_at: UtcTime | None = Field(description="null: an older version made it")
    champion_since: UtcTime
    champion_why: str
    live: list[LiveVerdictBody] = Field(description="its live losses against its baseline's, by target")
    refused: RefusedModelBody | None = Field(None, description="the newest model that was not let in")


class ModelBody(Described):
    symbol: str
    timeframe: str
    market: str
    model: ModelCardBody
    served_at: UtcTime


class StatusBody(Described):
    version: str
    market: str
    simulated: bool
    speed: float
    market_time: UtcTime
    market_open: bool
    next_open: UtcTime | None
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
    served_at: UtcTime


class Health(Described):
    status: Literal["alive", "ready"]


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
