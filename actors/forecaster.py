"""From closed bars to the board: ask the predictor, write the ledger, say what is served and how good it has been.

Pure: bars, predictor, ledger and clock are given. Knows neither Ray nor HTTP.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from actors import model_swap
from actors.forecast_record import BarsSince, ForecastRecord, Ledger
from actors.forecast_spool import ForecastSpool
from actors.model_swap import ModelSwap, Serving, unsound
from actors.signals import make_signal
from configs.settings import Settings
from market.errors import in_one_line
from market.forecasts import BoardUpdate, Forecast, HorizonForecast, SkillCard, iso_utc, jsonable
from market.market_clock import add_open_time, grace, is_open, next_week_open
from market.timeframes import Timeframe
from tuning.model_version import ModelVersion

UPDATES_KEPT = 64
T = TypeVar("T")

Tails = Callable[[Sequence[str], str, int], Mapping[str, pa.Table]]  # symbols, timeframe, n -> newest n bars of each
Predict = Callable[[str, dict[str, pa.Table]], Mapping[str, tuple[HorizonForecast, ...]]]


class Champions(model_swap.Champions, Protocol):
    """The part of tuning.registry.Registry that is needed here."""

    def demote(self, timeframe: str, model_id: str, why: str, evidence: dict[str, Any]) -> ModelVersion | None: ...


class Forecaster:
    """Holds the newest forecasts; every method may be called again with the same arguments without harm.

    A crash loses nothing but memory: forecasts are in the ledger or in its spool before they are published, bars in the store, and a new life forecasts from the
    stored bars without waiting for the next one. `predict` and `warm` may fail at any time: what is due stays due, the
    old model stays in charge, and the reason stands in `status()`.
    """

    def __init__(
        self,
        *,
        registry: Champions,
        tails: Tails,
        predict: Predict,
        warm: model_swap.Warm,
        publish: Callable[[BoardUpdate], None],
        ledger: Ledger,
        spool: ForecastSpool,
        now: Callable[[], datetime],
        settings: Settings,
        data_version: Callable[[], str] = lambda: "bars",
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        bars_since: BarsSince | None = None,
        beside: model_swap.Beside = model_swap.at_once,
    ) -> None:
        self._registry, self._tails, self._predict = registry, tails, predict
        self._swap = ModelSwap(registry, warm, self._rehearse, wall, beside)
        self._publish = publish
        self._record = ForecastRecord(ledger, spool, wall, now, bars_since, settings.symbols)
        self._now, self._wall, self._settings, self._data_version = now, wall, settings, data_version
        self._due = {(symbol, timeframe) for timeframe in settings.timeframes for symbol in settings.symbols}
        self._problems: dict[str, str] = {}
        self._unable: dict[str, tuple[str, str]] = {}  # series -> code and reason for which it cannot be forecast
        self._source: dict[str, Any] = {}
        self._live: dict[str, list[dict[str, Any]]] = {}
        self._started_at = wall()
        self._said: dict[str, Any] = {}
        self._board = BoardUpdate(version=0, status=self._status())
        self._recent: deque[tuple[int, frozenset[str]]] = deque(maxlen=UPDATES_KEPT)  # version, what it brought

    # What happens

    def on_bars(self, tables: Iterable[pa.Table]) -> None:
        """Closed bars have been stored; only which series they belong to is read from the tables."""
        for table in tables:
            if table.num_rows:
                self._due.add((table["symbol"][0].as_py(), table["timeframe"][0].as_py()))
        self._forecast_due()

    def on_source(self, status: dict[str, Any]) -> None:
        """What the market data actor says about its source: connected, reason, transport, simulated, prices, ..."""
        self._source = dict(status)

    def step(self) -> None:
        """Look for a new champion, retry what failed, tell the board when the source's state changed."""
        for timeframe in self._settings.timeframes:
            self._follow_champion(timeframe)
        self._record.replay()
        self._record.count_lag()
        self._forecast_due()
        if self._worth_saying() != self._said:
            self._announce({}, {}, {})

    def snapshot(self, since_version: int | None = None) -> BoardUpdate:
        """The whole board; with `since_version`, only what changed after it, if that is still known.

        May be called while another thread announces: a version is never given out without its content.
        """
        board, recent = self._board, tuple(self._recent)
        if since_version is None or not recent or since_version < recent[0][0] - 1:
            return board
        # Whole updates, each with every symbol's bars, would be 170 MB; the board has the newest of each key anyhow.
        later = {key for version, keys in recent if since_version < version <= board.version for key in keys}

        def brought(held: dict[str, T]) -> dict[str, T]:
            return {key: value for key, value in held.items() if key in later}

        return replace(
            board, forecasts=brought(board.forecasts), signals=brought(board.signals), bars=brought(board.bars)
        )

    def status(self) -> dict[str, Any]:
        return self._status()

    # The champion

    def _follow_champion(self, timeframe: str) -> None:
        if self._swap.look(timeframe):
            self._another_serves(timeframe)

    def _another_serves(self, timeframe: str) -> None:
        self._live.pop(timeframe, None)
        self._record.live.forget(timeframe)
        self._due |= {(symbol, timeframe) for symbol in self._settings.symbols}

    def _rehearse(self, serving: Serving) -> str:
        """What is wrong with the forecasts of the newest bars by a model that is to serve. On another thread."""
        symbols = [symbol for symbol in self._settings.symbols if symbol in serving.version.symbols]
        tails = self._tails(symbols, serving.version.timeframe, serving.bars_needed)
        bars = {symbol: table for symbol, table in tails.items() if table.num_rows >= serving.bars_needed}
        answers = self._predict(serving.version.id, bars) if bars else {}
        silent = [f"no forecast of {symbol}" for symbol in bars if symbol not in answers]
        return next(iter([*silent, *unsound(answers).values()]), "")

    def _judge(self, timeframe: str, serving: Serving) -> None:
        """Look at the champion's live losses; a stack that is worse than its own baseline has to go.

        An econometric champion is only measured: it is the baseline's kin, and training refits it.
        """
        verdicts = self._record.verdicts(serving.version, serving.since)
        if verdicts is None:
            return
        self._live[timeframe] = [verdict.to_dict() for verdict in verdicts]
        worse = [verdict for verdict in verdicts if verdict.worse]
        if not worse or serving.version.kind != "stack":
            return self._clear(f"live loss {timeframe}")
        why = f"{serving.version.id} was taken down: " + "; ".join(verdict.in_words() for verdict in worse) + "."
        try:
            self._registry.demote(timeframe, serving.version.id, why, worse[0].to_dict())
            self._clear(f"live loss {timeframe}")
        except Exception as error:  # nothing to go back to, or a disk that is full: it goes on serving, and says so
            self._note(f"live loss {timeframe}", f"{why} It still serves: {in_one_line(error)}")

    # Forecasting

    def _forecast_due(self) -> None:
        for timeframe in self._settings.timeframes:
            symbols = [s for s in self._settings.symbols if (s, timeframe) in self._due]
            serving = self._swap.serving.get(timeframe)
            if symbols and serving and self._record.may_take(len(symbols)):
                self._forecast(timeframe, symbols, serving)
                if self._swap.serving[timeframe] is serving:  # it was not sent back
                    self._judge(timeframe, serving)  # afterwards: nobody waits for a verdict

    def _forecast(self, timeframe: str, symbols: list[str], serving: Serving) -> None:
        """All given symbols in one call. Those that fail stay due."""
        bars: dict[str, pa.Table] = {}
        try:
            bars = self._enough_bars(timeframe, symbols, serving)
            answers = dict(self._predict(serving.version.id, bars)) if bars else {}
        except Exception as error:  # the predictor is another process: anything can come back
            why = f"The predictor did not answer: {in_one_line(error)}"
            if bars and self._swap.failed(timeframe, why, lambda before: self._answers(before, bars)):
                self._another_serves(timeframe)
            return self._note(f"forecast {timeframe}", why)
        self._clear(f"forecast {timeframe}")
        if wrong := unsound(answers):
            why = f"{serving.version.id} forecast nonsense: {next(iter(wrong.values()))}"
            if self._swap.send_back(timeframe, why):
                return self._another_serves(timeframe)
            self._note(f"forecast {timeframe}", f"{why}. It is not published.")
            self._unable |= {f"{symbol}/{timeframe}": ("forecast_failed", what) for symbol, what in wrong.items()}
            bars = {symbol: table for symbol, table in bars.items() if symbol not in wrong}
        elif bars:
            self._swap.answered(timeframe)
        self._record.settle(*bars.values())
        self._record.learn(serving.version, serving.since)
        version = self._data_version()
        made = [self._forecast_of(s, timeframe, bars[s], answers[s], serving, version) for s in bars if s in answers]
        for symbol in bars.keys() - answers.keys():
            self._unable[f"{symbol}/{timeframe}"] = (
                "forecast_failed",
                f"{serving.version.id} gave no forecast of {symbol}.",
            )
        if not made or not self._record.take(made):  # nothing to tell; the reason is in the problems
            return
        for forecast in made:
            self._due.discard((forecast.symbol, timeframe))
        self._announce(
            {f"{f.symbol}/{timeframe}": f for f in made},
            {f"{f.symbol}/{timeframe}": self._signal(f, serving) for f in made},
            {f"{f.symbol}/{timeframe}": bars[f.symbol] for f in made},
        )

    def _answers(self, serving: Serving, bars: Mapping[str, pa.Table]) -> bool:
        try:
            return not unsound(self._predict(serving.version.id, dict(bars)))
        except Exception:
            return False

    def _enough_bars(self, timeframe: str, symbols: list[str], serving: Serving) -> dict[str, pa.Table]:
        """Symbol -> newest bars, for the symbols that the model knows and that have enough of them."""
        found = {}
        known = [symbol for symbol in symbols if symbol in serving.version.symbols]
        for symbol in set(symbols) - set(known):
            why = f"{serving.version.id} was not trained on {symbol}: run `lstmc train`."
            self._unable[f"{symbol}/{timeframe}"] = "model_missing", why
            self._due.discard((symbol, timeframe))
        tails = self._tails(known, timeframe, max(serving.bars_needed, self._settings.board_bars + 1))
        for symbol in known:
            key, bars = f"{symbol}/{timeframe}", tails[symbol]
            if bars.num_rows < serving.bars_needed:
                why = f"{bars.num_rows} bars of {symbol} are stored, {serving.bars_needed} are needed."
                self._unable[key] = "forecast_failed", why
                continue
            self._unable.pop(key, None)
            found[symbol] = bars
        return found

    def _forecast_of(
        self,
        symbol: str,
        timeframe: str,
        bars: pa.Table,
        horizons: tuple[HorizonForecast, ...],
        serving: Serving,
        data_version: str,
    ) -> Forecast:
        close = bars["close"][-1].as_py()
        adapted = [self._record.live.adapt(symbol, timeframe, close, horizon) for horizon in horizons]
        return Forecast(
            symbol=symbol,
            timeframe=timeframe,
            as_of=bars["close_time"][-1].as_py(),
            last_close=close,
            horizons=tuple(replace(h, skill=self._skill(serving.version, h.bars, symbol)) for h in adapted),
            model_id=serving.version.id,
            data_version=data_version,
            made_at=self._wall(),
            market=self._market(),
        )

    def _market(self) -> str:
        """Over HTTP what the host at the other end says it is: a simulated market is called so in every forecast."""
        told = self._source.get("market") if self._settings.market == "http" else None
        return str(told or self._settings.market)

    def _skill(self, version: ModelVersion, bars: int, symbol: str | None) -> tuple[SkillCard, ...]:
        """The champion's cards of one horizon, with how it has done live, for `symbol` or for all."""
        names = {f"rv{bars}", f"r{bars}", f"sign{bars}"}
        return tuple(self._with_live(c, version.timeframe, symbol) for c in version.skill if c.target in names)

    def _with_live(self, card: SkillCard, timeframe: str, symbol: str | None) -> SkillCard:
        """Of this model's own forecasts: those of the champion before it say nothing about it."""
        if card.metric == "auc":
            return replace(card, live_reason="Live, direction is judged by its log-loss.")
        figure = self._record.live.figure(timeframe, card.target, symbol)
        if figure is None:
            return replace(card, live_reason="The ledger has not been read yet.")
        return replace(
            card,
            live_coverage80=figure.coverage80 if card.metric == "pinball" else None,
            live_n=figure.n,
            live_since=figure.since,
            live_value=figure.value,
            live_t=figure.t,
            live_baseline="base_rate" if card.metric == "log_loss" else "har_how",
            live_reason=figure.reason,
        )

    def _signal(self, forecast: Forecast, serving: Serving) -> dict[str, Any]:
        spreads = self._source.get("spread_points") or {}
        barred = self._why_barred(forecast)
        return make_signal(forecast, serving.version.gate, spreads.get(forecast.symbol), barred=barred).to_dict()

    def _why_barred(self, forecast: Forecast) -> tuple[str, str]:
        """Code and reason: the next bar is overdue, or the market closed."""
        due, now = add_open_time(forecast.as_of, Timeframe.parse(forecast.timeframe).delta), self._now()
        if now > due + grace(self._settings.speed):
            return "stale", f"the data is stale: the next bar was due at {iso_utc(due)}"
        if not is_open(now):
            return "market_closed", f"the market is closed; it opens at {iso_utc(next_week_open(now))}"
        return "", ""

    # The board

    def _announce(
        self, forecasts: dict[str, Forecast], signals: dict[str, dict[str, Any]], bars: dict[str, pa.Table]
    ) -> None:
        """Put what is new on the board and send exactly that."""
        update = BoardUpdate(
            version=self._board.version + 1,
            forecasts={key: forecast.to_dict() for key, forecast in forecasts.items()},
            signals=signals,
            skill={timeframe: self._cards(serving.version) for timeframe, serving in self._swap.serving.items()},
            models={timeframe: self._card(timeframe, serving) for timeframe, serving in self._swap.serving.items()},
            bars={key: _rows(table, self._settings.board_bars) for key, table in bars.items()},
            status=self._status(),
        )
        self._recent.append((update.version, frozenset(forecasts)))  # before the board, see `snapshot`
        self._board = replace(
            update,
            forecasts=self._board.forecasts | update.forecasts,
            signals=self._board.signals | update.signals,
            bars=self._board.bars | update.bars,
        )
        self._said = self._worth_saying()
        try:
            self._publish(update)
            self._clear("publish")
        except Exception as error:  # replicas pull the board by themselves every few seconds
            self._note("publish", f"The HTTP side could not be told: {in_one_line(error)}")

    def _card(self, timeframe: str, serving: Serving) -> dict[str, Any]:
        """The champion's identity card, since when and why it serves, how it has done live, and who was not let in."""
        said = {"champion_since": iso_utc(serving.since), "champion_why": serving.why}
        refused = self._swap.refused.get(timeframe)
        live = {"live": self._live.get(timeframe, []), "refused": refused.to_dict() if refused else None}
        return serving.version.to_dict() | said | live

    def _cards(self, version: ModelVersion) -> list[dict[str, Any]]:
        cards = [card for bars in version.horizons for card in self._skill(version, bars, None)]
        return [card.to_dict() for card in cards]

    def _status(self) -> dict[str, Any]:
        source = jsonable({k: v for k, v in self._source.items() if k not in ("prices", "spread_points")})
        unable = {f"bars {key}": reason for key, (_, reason) in self._unable.items()}
        return {
            "started_at": iso_utc(self._started_at),
            "market": self._settings.market,
            "source": source or {"connected": False, "reason": "the market data actor has not reported yet"},
            "transport": self._source.get("transport"),
            "champion": {timeframe: serving.version.id for timeframe, serving in self._swap.serving.items()},
            "champion_why": {timeframe: serving.why for timeframe, serving in self._swap.serving.items()},
            "live": dict(self._live),
            "due": len(self._due),
            "spooled": self._record.waiting,
            "ledger_lag": self._record.lag,
            "refused": {timeframe: one.to_dict() for timeframe, one in self._swap.refused.items()},
            "problems": self._problems | unable | self._swap.problems | self._record.problems,
            "series": self._series(),
            "market_now": iso_utc(self._now()),
        }

    def _series(self) -> dict[str, dict[str, str]]:
        """What cannot be forecast now, by series: a model, a bar or a forecast is missing, and why."""
        refused = self._source.get("problems") or {}
        withheld = self._record.problems.get("forecasts withheld", "")
        found = {}
        for timeframe in self._settings.timeframes:
            what = f"champion {timeframe}"
            no_model = "" if timeframe in self._swap.serving else self._swap.problems.get(what, "No model yet.")
            failed = self._problems.get(f"forecast {timeframe}", withheld)
            for symbol in self._settings.symbols:
                key, is_due = f"{symbol}/{timeframe}", (symbol, timeframe) in self._due
                whole = ("model_missing", no_model) if no_model else ("forecast_failed", failed if is_due else "")
                partly = self._unable.get(key) or ("data_refused", str(refused.get(key) or ""))
                code, reason = whole if whole[1] else partly
                if reason:
                    found[key] = {"code": code, "reason": reason}
        return found

    def _worth_saying(self) -> dict[str, Any]:
        """The part of the status whose change is worth an update of its own: no clocks, no counters."""
        status = self._status()
        source = status["source"]
        return {
            "connected": source.get("connected"),
            "reason": source.get("reason"),
            "transport": source.get("transport"),
            "source_problems": sorted(source.get("problems") or {}),
            "problems": {k: _without_counts(v) for k, v in status["problems"].items() if k != "publish"},
            "models": {timeframe: serving.version.id for timeframe, serving in self._swap.serving.items()},
            "refused": status["refused"],
            "series": {key: one["code"] for key, one in status["series"].items()},
        }

    def _note(self, what: str, problem: str) -> None:
        self._problems[what] = problem

    def _clear(self, what: str) -> None:
        self._problems.pop(what, None)


def _rows(bars: pa.Table, n: int) -> list[list[Any]]:
    """The newest `n` bars as [close_time, open, high, low, close]."""
    newest = bars.slice(max(0, bars.num_rows - n))
    closes = np.datetime_as_string(newest["close_time"].to_numpy().astype("datetime64[s]"))
    prices = (newest[name].to_numpy().tolist() for name in ("open", "high", "low", "close"))
    return [[f"{close}Z", *row] for close, *row in zip(closes.tolist(), *prices, strict=True)]


def _without_counts(problem: str) -> str:
    """One more forecast in the spool is no news."""
    return re.sub(r"\d+", "", problem)
