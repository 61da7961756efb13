// The list of symbols: freshness, price, volatility against usual, and the direction if there is one.

import { symbolState } from "./condition.js";
import { $, make, sparkline } from "./elements.js";
import { DASH, clock, price, times } from "./format.js";
import { t } from "./texts.js";

const DOTS = { fresh: "fresh", closed: "closed", stale: "late", missing: "late", troubled: "late", unknown: "none" };

export function showSymbols(state, digitsOf, direction) {
  const list = $("symbols");
  if (list.children.length !== state.symbols.length) list.replaceChildren(...state.symbols.map(row));
  state.symbols.forEach((symbol, i) => {
    const button = list.children[i].firstChild;
    button.dataset.symbol = symbol;
    button.setAttribute("aria-pressed", String(symbol === state.symbol));
    fill(button, symbol, state, digitsOf(symbol), direction(symbol));
  });
}

function row() {
  const button = make("button", "symbol",
    make("i", "dot"), make("b", "code"), make("span", "last"), make("span", "spark"), make("span", "vol"), make("span", "chip"));
  button.type = "button";
  return make("li", "", button);
}

function fill(button, symbol, state, digits, { side, word }) {
  const name = `${symbol}/${state.frame}`;
  const forecast = state.forecasts[name];
  const condition = symbolState(forecast, state.link);
  const ratio = forecast?.horizons.at(-1)?.volatility_ratio ?? null;
  const part = (of) => button.querySelector(`.${of}`);
  const last = forecast ? price(forecast.last_close, digits) : DASH;
  const time = forecast ? clock(new Date(forecast.as_of)) : "";
  const said = condition === "fresh" ? word : t(`symbol.${condition}`);
  button.dataset.state = condition;
  part("dot").className = `dot ${DOTS[condition]}`;
  part("code").textContent = symbol;
  part("last").textContent = last;
  part("vol").textContent = forecast ? `${t("symbol.volatility", { times: times(ratio) })} · ${time}` : "";
  part("vol").classList.toggle("high", ratio >= 1.25);
  part("chip").textContent = said;
  part("chip").className = `chip ${condition === "fresh" ? side : condition}`;
  part("spark").replaceChildren(sparkline((state.bars[name] ?? []).slice(-48).map((bar) => bar[4])));
  button.setAttribute("aria-label", forecast
    ? t("symbol.spoken", { symbol, state: t(`symbol.${condition}`), price: last, time, times: times(ratio), direction: word })
    : t("symbol.spoken_missing", { symbol }));
}

// Arrow keys walk through the list, Home and End go to its ends.
export function wireSymbols(choose) {
  const list = $("symbols");
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) choose(button.dataset.symbol);
  });
  list.addEventListener("keydown", (event) => {
    const buttons = [...list.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1;
    const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const next = buttons[(to + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
}
