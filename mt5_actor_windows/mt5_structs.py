"""The tuple types that MetaTrader5 5.0.6231 returns: same fields in the same order, `_asdict()`, no `_fields`, no `_replace`.

Names and order are the real module's; values are the terminal's business.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any


class _Struct(tuple[Any, ...]):
    """A tuple with named fields. `make` fills what is not given with 0 or, for texts, ""."""

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()
    TEXTS: frozenset[str] = frozenset()

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self.__match_args__, self, strict=True))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({inside})"

    @classmethod
    def make(cls, given: dict[str, Any]) -> Any:
        unknown = given.keys() - set(cls.__match_args__)
        if unknown:
            raise TypeError(f"{cls.__name__} has no field {sorted(unknown)}")
        return cls(given.get(name, "" if name in cls.TEXTS else 0) for name in cls.__match_args__)


def _struct(name: str, fields: str, texts: str = "") -> Any:
    names = tuple(fields.split())
    members: dict[str, Any] = {field: property(itemgetter(i)) for i, field in enumerate(names)}
    members |= {"__slots__": (), "__match_args__": names, "TEXTS": frozenset(texts.split()), "n_fields": len(names)}
    return type(name, (_Struct,), members)


Tick = _struct(
    "Tick",
    "time bid ask last volume time_msc flags volume_real",
)

TerminalInfo = _struct(
    "TerminalInfo",
    "community_account community_connection connected dlls_allowed trade_allowed tradeapi_disabled "
    "email_enabled ftp_enabled notifications_enabled mqid build maxbars codepage ping_last community_balance "
    "retransmission company name language path data_path commondata_path",
    "company name language path data_path commondata_path",
)

AccountInfo = _struct(
    "AccountInfo",
    "login trade_mode leverage limit_orders margin_so_mode trade_allowed trade_expert margin_mode "
    "currency_digits fifo_close balance credit profit equity margin margin_free margin_level margin_so_call "
    "margin_so_so margin_initial margin_maintenance assets liabilities commission_blocked name server currency "
    "company",
    "name server currency company",
)

SymbolInfo = _struct(
    "SymbolInfo",
    "custom chart_mode select visible session_deals session_buy_orders session_sell_orders volume volumehigh "
    "volumelow time digits spread spread_float ticks_bookdepth trade_calc_mode trade_mode start_time "
    "expiration_time trade_stops_level trade_freeze_level trade_exemode swap_mode swap_rollover3days "
    "margin_hedged_use_leg expiration_mode filling_mode order_mode order_gtc_mode option_mode option_right bid "
    "bidhigh bidlow ask askhigh asklow last lasthigh lastlow volume_real volumehigh_real volumelow_real "
    "option_strike point trade_tick_value trade_tick_value_profit trade_tick_value_loss trade_tick_size "
    "trade_contract_size trade_accrued_interest trade_face_value trade_liquidity_rate volume_min volume_max "
    "volume_step volume_limit swap_long swap_short margin_initial margin_maintenance session_volume "
    "session_turnover session_interest session_buy_orders_volume session_sell_orders_volume session_open "
    "session_close session_aw session_price_settlement session_price_limit_min session_price_limit_max "
    "margin_hedged price_change price_volatility price_theoretical price_greeks_delta price_greeks_theta "
    "price_greeks_gamma price_greeks_vega price_greeks_rho price_greeks_omega price_sensitivity basis category "
    "currency_base currency_profit currency_margin bank description exchange formula isin name page path",
    "basis category currency_base currency_profit currency_margin bank description exchange formula isin name page path",
)
