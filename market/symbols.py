"""Currency pairs and metals: codes, digits and broker spellings. Knows nothing about prices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from market.errors import UnknownSymbol


@dataclass(frozen=True, order=True)
class Symbol:
    """One instrument. `digits` are price decimals; `point` is the smallest price step, `10 ** -digits`."""

    code: str
    base: str
    quote: str
    digits: int

    @property
    def point(self) -> float:
        return float(f"1e-{self.digits}")

    def __str__(self) -> str:
        return self.code


def _pair(code: str) -> Symbol:
    base, quote = code[:3], code[3:]
    digits = 2 if base == "XAU" else 3 if "JPY" in code or base == "XAG" else 5
    return Symbol(code, base, quote, digits)


# The allow-list: seven majors, twenty-one crosses, two metals.
CATALOGUE: dict[str, Symbol] = {
    code: _pair(code)
    for code in (
        "EURUSD GBPUSD USDJPY USDCHF USDCAD AUDUSD NZDUSD "
        "EURGBP EURJPY EURCHF EURCAD EURAUD EURNZD "
        "GBPJPY GBPCHF GBPCAD GBPAUD GBPNZD "
        "AUDJPY AUDCHF AUDCAD AUDNZD NZDJPY NZDCHF NZDCAD CADJPY CADCHF CHFJPY "
        "XAUUSD XAGUSD"
    ).split()
}

MAJORS: tuple[str, ...] = ("EURUSD", "GBPUSD", "USDJPY", "USDCHF", "USDCAD", "AUDUSD", "NZDUSD")

_BROKER_SPELLING = re.compile(r"^[#@.]?([A-Za-z]{6})([._#+-]?[A-Za-z0-9]{0,8})?$")


def symbol(code: str) -> Symbol:
    """`"eurusd"` -> Symbol; UnknownSymbol lists near names. Broker suffixes are not accepted here: see `from_broker`."""
    found = CATALOGUE.get(str(code).strip().upper())
    if found is None:
        raise UnknownSymbol(f"Unknown symbol {code!r}.", hint=f"Known symbols: {', '.join(CATALOGUE)}.")
    return found


def symbols(codes: Iterable[str]) -> tuple[Symbol, ...]:
    """Codes -> Symbols, in the given order, duplicates dropped."""
    return tuple(dict.fromkeys(symbol(code) for code in codes))


def from_broker(name: str) -> Symbol | None:
    """A broker's spelling ("EURUSD.a", "EURUSDm", "#EURUSD") -> Symbol, or None when it is none of ours."""
    match = _BROKER_SPELLING.match(name)
    return CATALOGUE.get(match.group(1).upper()) if match else None
