// The page: one stream in, one state, everything drawn from it. Holds no figure that the API does not give.

import { draw } from "./chart.js";
import { conditionOf, symbolState } from "./condition.js";
import { $, choices, make, refill, say } from "./elements.js";
import { clock, number, percent, price, setLanguage, setZone, zoneName } from "./format.js";
import { farthest, showDirection, showHeadline, showHorizons, showHud, showVolatility } from "./forecast_view.js";
import { preference, token, wirePreferences } from "./preferences.js";
import { direction, refusedWords } from "./reasons.js";
import { showRecord, showSkill } from "./skill.js";
import { openStream } from "./stream.js";
import { showSymbols, wireSymbols } from "./symbol_list.js";
import { showAges, showClock, showCondition, showFacts, showNotices, showSystem, showWaiting } from "./system_view.js";
import { speak, t } from "./texts.js";

const BARS_KEPT = 500;
const SPANS = [48, 120, 240]; // bars
const NO_TOKEN = /[^\x21-\x7e]/; // what cannot stand in a header
const ANNOUNCE_MS = 20_000; // a fast market would talk without end

const state = {
  forecasts: {}, signals: null, bars: {}, skill: {}, models: {}, status: {}, digits: {},
  symbols: [], frames: [], symbol: "", frame: "", shown: window.innerWidth < 720 ? 48 : 120,
  link: "idle", detail: "", refused: null, market: null, speed: 1, heardAt: 0, announced: ["", 0], close: () => {},
};
const key = (symbol = state.symbol) => `${symbol}/${state.frame}`;
const digitsOf = (symbol) => state.digits[symbol] ?? 5;
const cards = () => state.skill[state.frame] ?? [];
const directionOf = (symbol) => {
  const forecast = state.forecasts[key(symbol)];
  return direction(state.signals?.[key(symbol)], state.signals !== null, symbolState(forecast, state.link), cards());
};

// Logging in

function start() {
  const held = token.get();
  $("log-in").hidden = Boolean(held);
  $("desk").hidden = !held;
  $("log-out").hidden = !held;
  showRefused();
  if (!held) return $("token").focus();
  state.close = openStream(held, { event: onEvent, state: onLink, refused: logOut });
  return undefined;
}

// `problem`: the server's, when it was the server that ended it. Nothing of what was shown is kept.
function logOut(problem = null) {
  state.close();
  token.forget();
  Object.assign(state, { forecasts: {}, signals: null, bars: {}, skill: {}, models: {}, status: {}, symbols: [], market: null, refused: problem });
  document.title = t("title");
  onLink("idle", "");
  drawClock();
  start();
}

function showRefused() {
  const refused = token.get() ? null : state.refused;
  say("log-in-error", refused ? refusedWords(refused) : "");
  $("token").setAttribute("aria-invalid", String(Boolean(refused)));
}

// The stream

function onEvent(kind, data) {
  state.market = new Date(data.market_time);
  state.heardAt = Date.now();
  if (kind === "heartbeat") return drawClock();
  if (kind === "snapshot") Object.assign(state, { forecasts: {}, bars: {}, signals: null });
  state.speed = data.speed;
  Object.assign(state.forecasts, data.forecasts);
  Object.assign(state.digits, data.digits);
  if (data.signals) state.signals = { ...state.signals, ...data.signals };
  for (const [name, rows] of Object.entries(data.bars)) state.bars[name] = merge(state.bars[name] ?? [], rows);
  Object.assign(state, { skill: data.skill, models: data.models, status: data.status, symbols: data.symbols, frames: data.timeframes });
  if (!state.symbols.includes(state.symbol)) state.symbol = state.symbols[0];
  if (!state.frames.includes(state.frame)) state.frame = state.frames[0];
  drawAll();
  return announce();
}

function merge(held, fresh) {
  const rows = new Map([...held, ...fresh].map((row) => [row[0], row]));
  return [...rows.values()].sort((a, b) => (a[0] < b[0] ? -1 : 1)).slice(-BARS_KEPT);
}

function onLink(link, detail) {
  const changed = link !== state.link;
  Object.assign(state, { link, detail });
  document.body.dataset.link = link;
  if (changed) drawAll();
}

// A newer bar of the chosen symbol, for those who listen to the page.
function announce() {
  const forecast = state.forecasts[key()];
  const [said, at] = state.announced;
  const what = `${key()} ${forecast?.as_of}`;
  if (!forecast || said === what || Date.now() - at < ANNOUNCE_MS) return;
  state.announced = [what, Date.now()];
  const close = price(forecast.last_close, digitsOf(state.symbol));
  say("announce", t("announce", { symbol: state.symbol, time: clock(new Date(forecast.as_of)), price: close, direction: directionOf(state.symbol).word }));
}

// Drawing

function drawAll() {
  const condition = conditionOf(state);
  const forecast = state.forecasts[key()];
  showCondition(condition, state.detail);
  if (!token.get()) return;
  drawBanner();
  drawFrames();
  showSymbols(state, digitsOf, directionOf);
  for (const [id, shown] of [["waiting", !forecast], ["forecast", forecast], ["skill-box", cards().length], ["facts-box", forecast]]) $(id).hidden = !shown;
  showNotices(state, condition, forecast, marketNow());
  showSystem(state, condition, forecast);
  showSkill(cards());
  if (forecast) drawForecast(forecast);
  else showWaiting(state, condition);
  drawClock();
}

// The server writes the banner of its own market; behind a data API only the source knows that its prices are not live.
function drawBanner() {
  const market = state.status.source?.market;
  if (!["simulated", "recorded"].includes(market) || document.documentElement.dataset.market !== "http") return;
  const words = ["strong", "span"].map((tag, i) => {
    const part = make(tag);
    part.dataset.text = `banner.${market}${i ? ".detail" : ""}`;
    part.textContent = t(part.dataset.text);
    return part;
  });
  $("banner").replaceChildren(...words);
  document.documentElement.dataset.market = market;
}

function drawFrames() {
  $("frames").hidden = state.frames.length < 2;
  choices($("frames"), state.frames.map((frame) => [frame, frame]), state.frame, (frame) => {
    state.frame = frame;
    drawAll();
  });
}

function drawForecast(forecast) {
  const rows = state.bars[key()] ?? [];
  const digits = digitsOf(state.symbol);
  const made = ["simulated", "recorded"].includes(forecast.market) ? `[${t(`market.${forecast.market}`)}] ` : "";
  document.title = `${made}${state.symbol} ${price(forecast.last_close, digits)} · LSTMC`;
  showHeadline(forecast, rows, digits);
  showVolatility(forecast);
  showDirection(directionOf(state.symbol));
  showRecord(cards(), farthest(forecast).bars);
  showHorizons(forecast, digits);
  showFacts(forecast, state.models[state.frame]);
  drawChart(forecast, rows, digits);
}

function drawChart(forecast, rows, digits) {
  choices($("spans"), SPANS.map((n) => [t("chart.count", { n: number(n) }, n), n]), state.shown, (shown) => {
    state.shown = shown;
    drawAll();
  });
  showHud(rows.at(-1), digits);
  say("chart-zone", t("chart.times", { zone: zoneName() }));
  const keys = [["k50", percent(0.5, 0)], ["k80", percent(0.8, 0)], ["k90", t("legend.outcomes", { share: percent(0.9, 0) })], ["k-median", t("legend.median")]];
  refill($("legend"), [...keys, t("legend.note")], () => [...keys.map(([kind, words]) => make("span", `key ${kind}`, words)), make("span", "note", t("legend.note"))]);
  $("figure").hidden = !rows.length;
  if (rows.length) draw($("chart"), rows, forecast, digits, state.shown, (row) => showHud(row, digits));
}

function marketNow() {
  if (!state.market) return new Date();
  return new Date(state.market.getTime() + (Date.now() - state.heardAt) * (state.link === "live" ? state.speed : 0));
}

function drawClock() {
  $("clock").hidden = !state.market;
  if (!state.market) return;
  const forecast = state.forecasts[key()];
  showClock(marketNow(), state.speed, forecast?.next_bar_due);
  if (forecast) showAges(forecast, state.models[state.frame], marketNow());
}

// Wiring

const dark = matchMedia("(prefers-color-scheme: dark)");

function applyPreference(name, value) {
  if (name === "theme") document.documentElement.dataset.theme = value;
  if (name === "zone") setZone(value);
  if (name === "language") {
    setLanguage(value);
    speak(value);
  }
  showRefused();
  drawAll();
}

$("log-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  $("token").value = "";
  state.refused = NO_TOKEN.test(given) || !given ? { reason_code: "token_malformed" } : null;
  if (!state.refused) token.set(given);
  start();
});
$("log-out").addEventListener("click", () => logOut());
wireSymbols((symbol) => {
  state.symbol = symbol;
  drawAll();
});
wirePreferences(applyPreference);
dark.addEventListener("change", drawAll);
setInterval(drawClock, 1000);

setZone(preference("zone"));
document.documentElement.dataset.theme = preference("theme");
applyPreference("language", preference("language"));
start();
