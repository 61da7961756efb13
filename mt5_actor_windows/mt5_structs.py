"""The tuple types that MetaTrader5 5.0.6231 returns: same fields in the same order, `_asdict()`, no `_fields`, no `_replace`.

Names and order are the real module's; values are the terminal's business. Like the real ones they cannot be pickled.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any


class _Field:
    """A read-only field, with the real types' message."""

    def __init__(self, at: int) -> None:
        self._get = itemgetter(at)

    def __get__(self, one: Any, kind: Any = None) -> Any:
        return self if one is None else self._get(one)

    def __set__(self, one: Any, value: Any) -> None:
        raise AttributeError("readonly attribute")


class _Struct(tuple[Any, ...]):
    """A tuple with named fields, made of one sequence, as CPython's struct sequences are."""

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()
    n_fields = n_sequence_fields = n_unnamed_fields = 0

    def __new__(cls, values: Any) -> Any:
        try:
            found = tuple(values)
        except TypeError:
            raise TypeError("constructor requires a sequence") from None
        if len(found) != cls.n_fields:
            raise TypeError(f"{cls.__name__}() takes a {cls.n_fields}-sequence ({len(found)}-sequence given)")
        return super().__new__(cls, found)

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self.__match_args__, self, strict=True))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({inside})"


def filled(kind: Any, given: dict[str, Any]) -> Any:
    """A struct of which only some fields are known; the others are 0 or, for texts, ""."""
    unknown = given.keys() - set(kind.__match_args__)
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {sorted(unknown)}")
    return kind(given.get(name, "" if name in _TEXTS else 0) for name in kind.__match_args__)


def _struct(name: str, doc: str, fields: str) -> Any:
    names = tuple(fields.split())
    members: dict[str, Any] = {field: _Field(at) for at, field in enumerate(names)}
    members |= {"__slots__": (), "__match_args__": names, "__module__": "builtins", "__doc__": doc}
    return type(name, (_Struct,), members | {"n_fields": len(names), "n_sequence_fields": len(names)})


_TEXTS = frozenset(
    "company name language path data_path commondata_path server currency basis category currency_base currency_profit "
    "currency_margin bank description exchange formula isin page".split()
)

Tick = _struct(
    "Tick",
    "This is a structure for storing latest symbol prices",
    "time bid ask last volume time_msc flags volume_real",
)

TerminalInfo = _struct(
    "TerminalInfo",
    "This is a structure for storing terminal information",
    "community_account community_connection connected dlls_allowed trade_allowed tradeapi_disabled email_enabled "
    "ftp_enabled notifications_enabled mqid build maxbars codepage ping_last community_balance retransmission "
    "company name language path data_path commondata_path",
)

AccountInfo = _struct(
    "AccountInfo",
    "This is a structure for storing account information",
    "login trade_mode leverage limit_orders margin_so_mode trade_allowed trade_expert margin_mode currency_digits "
    "fifo_close balance credit profit equity margin margin_free margin_level margin_so_call margin_so_so "
    "margin_initial margin_maintenance assets liabilities commission_blocked name server currency company",
)

SymbolInfo = _struct(
    "SymbolInfo",
    "This is a structure for storing symbol information",
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
)

BookInfo = _struct(
    "BookInfo",
    "This is a structure for storing Depth of Market information",
    "type price volume volume_dbl",
)

OrderCheckResult = _struct(
    "OrderCheckResult",
    "order_check result structure",
    "retcode balance equity profit margin margin_free margin_level comment request",
)

OrderSendResult = _struct(
    "OrderSendResult",
    "order_send result structure",
    "retcode deal order volume price bid ask comment request_id retcode_external request",
)

TradeDeal = _struct(
    "TradeDeal",
    "Trade deal structure",
    "ticket order time time_msc type entry magic position_id reason volume price commission swap profit fee "
    "symbol comment external_id",
)

TradeOrder = _struct(
    "TradeOrder",
    "Trade order structure",
    "ticket time_setup time_setup_msc time_done time_done_msc time_expiration type type_time type_filling state "
    "magic position_id position_by_id reason volume_initial volume_current price_open sl tp price_current "
    "price_stoplimit symbol comment external_id",
)

TradePosition = _struct(
    "TradePosition",
    "Trade position structure",
    "ticket time time_msc time_update time_update_msc type magic identifier reason volume price_open sl tp "
    "price_current swap profit symbol comment external_id",
)

TradeRequest = _struct(
    "TradeRequest",
    "Trade request structure",
    "action magic order symbol volume price stoplimit sl tp deviation type type_filling type_time expiration "
    "comment position position_by",
)

STRUCTS = {
    kind.__name__: kind
    for kind in (
        Tick,
        TerminalInfo,
        AccountInfo,
        SymbolInfo,
        BookInfo,
        OrderCheckResult,
        OrderSendResult,
        TradeDeal,
        TradeOrder,
        TradePosition,
        TradeRequest,
    )
}
