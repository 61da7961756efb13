// The page: one stream in, one state, everything drawn from it. Holds no figure the API does not give.

import { draw, hasFan } from "./chart.js";
import { DASH, dayAndClock, span } from "./format.js";
import { openStream } from "./stream.js";
import { $, fillSymbolRow, make, showFacts, showHeadline, showHorizons, showHud, showSignal, showSkill, showWaiting, symbolRow } from "./view.js";

const TOKEN = "lstmc.token";
const BARS_KEPT = 500;
const SPANS = [["2 days", 48], ["5 days", 120], ["10 days", 240]];

const state = {
  forecasts: {}, signals: null, bars: {}, skill: {}, models: {}, status: {}, digits: {},
  symbols: [], frames: [], symbol: "", frame: "", shown: window.innerWidth < 720 ? 48 : 120,
  link: "connecting", market: null, speed: 1, heardAt: 0, close: () => {},
};
const key = (symbol = state.symbol) => `${symbol}/${state.frame}`;
const digitsOf = (symbol) => state.digits[symbol] ?? 5;

// Logging in

function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  sessionStorage.setItem(TOKEN, given);
  history.replaceState(null, "", location.pathname);
}

function start() {
  const token = sessionStorage.getItem(TOKEN);
  $("log-in").hidden = Boolean(token);
  $("desk").hidden = !token;
  $("log-out").hidden = !token;
  if (!token) return $("token").focus();
  state.close = openStream(token, { event: onEvent, state: onLink, refused: onRefused });
  return undefined;
}

function logOut(why = "") {
  state.close();
  sessionStorage.removeItem(TOKEN);
  $("log-in-error").textContent = why;
  $("log-in-error").hidden = !why;
  onLink("idle", "");
  start();
}

function onRefused(problem) {
  logOut(`${problem.detail} A new one comes from: lstmc token issue`);
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
  return undefined;
}

function merge(held, fresh) {
  const rows = new Map([...held, ...fresh].map((row) => [row[0], row]));
  return [...rows.values()].sort((a, b) => (a[0] < b[0] ? -1 : 1)).slice(-BARS_KEPT);
}

function onLink(link, detail) {
  const changed = link !== state.link;
  state.link = link;
  const words = { live: "Live", connecting: "Connecting …", lost: "Connection lost, trying again", idle: "Not connected" };
  $("link-text").textContent = words[link];
  $("link-text").title = detail;
  $("link-dot").className = `dot ${{ live: "fresh", lost: "late" }[link] ?? "none"}`;
  document.body.dataset.link = link;
  if (changed && state.symbols.length) drawList();
}

// Drawing

function drawAll() {
  drawBanner();
  drawFrames();
  drawList();
  drawFocus();
  drawClock();
}

// The server writes the banner of its own market; behind a data API only the source knows that its prices are not live.
function drawBanner() {
  const words = JSON.parse($("banner").dataset.banners)[state.status.source?.market];
  if (!words || document.documentElement.dataset.market !== "http") return;
  $("banner").replaceChildren(make("strong", "", words[0]), make("span", "", words[1]));
  document.documentElement.dataset.market = state.status.source.market;
}

function drawFrames() {
  $("frames").hidden = state.frames.length < 2;
  choices($("frames"), state.frames.map((frame) => [frame, frame]), state.frame, (frame) => {
    state.frame = frame;
    drawAll();
  });
}

// Buttons of which one is pressed; built again only when the choice changes, so that focus stays.
function choices(box, options, chosen, choose) {
  const mark = JSON.stringify([options, chosen]);
  if (box.dataset.mark === mark) return;
  const focused = box.contains(document.activeElement);
  box.dataset.mark = mark;
  box.replaceChildren(
    ...options.map(([label, value]) => {
      const button = make("button", "choice", label);
      button.type = "button";
      button.setAttribute("aria-pressed", String(value === chosen));
      button.addEventListener("click", () => choose(value));
      return button;
    }),
  );
  if (focused) box.querySelector("[aria-pressed=true]")?.focus();
}

function drawList() {
  const list = $("symbols");
  if (list.children.length !== state.symbols.length) {
    list.replaceChildren(...state.symbols.map((symbol) => symbolRow(symbol, symbol === state.symbol)));
  }
  for (const button of list.querySelectorAll("button")) {
    const symbol = button.dataset.symbol;
    button.setAttribute("aria-pressed", String(symbol === state.symbol));
    const name = key(symbol);
    fillSymbolRow(button, state.forecasts[name], state.signals?.[name], state.bars[name], digitsOf(symbol), state.link === "live");
  }
}

function drawFocus() {
  const forecast = state.forecasts[key()];
  $("waiting").hidden = Boolean(forecast);
  $("forecast").hidden = !forecast;
  $("side").hidden = !forecast;
  showSkill(state.skill[state.frame] ?? []);
  if (!forecast) return showWaiting(state.status, state.link);
  const rows = state.bars[key()] ?? [];
  const digits = digitsOf(state.symbol);
  document.title = `${state.symbol} ${forecast.last_close.toFixed(digits)} · LSTMC`;
  showHeadline(forecast, rows, digits);
  showHorizons(forecast, digits);
  showSignal(state.signals?.[key()], state.signals !== null);
  choices($("spans"), SPANS, state.shown, (shown) => {
    state.shown = shown;
    drawFocus();
  });
  showHud(rows.at(-1), digits);
  if (rows.length && hasFan(forecast)) draw($("chart"), rows, forecast, digits, state.shown, (row) => showHud(row, digits));
  $("chart").dataset.asOf = forecast.as_of;
  drawAge();
  return undefined;
}

function marketNow() {
  return new Date(state.market.getTime() + (Date.now() - state.heardAt) * (state.link === "live" ? state.speed : 0));
}

function drawClock() {
  if (!state.market) return;
  const now = marketNow();
  $("market-time").textContent = dayAndClock(now) + (state.speed === 1 ? "" : ` · ${state.speed} ×`);
  const due = state.forecasts[key()]?.next_bar_due;
  const left = due ? (new Date(due) - now) / 1000 / state.speed : null;
  $("next-bar").textContent = left === null ? DASH : left > 0 ? `in ${span(left)}` : "due";
}

function drawAge() {
  const forecast = state.forecasts[key()];
  if (!forecast || !state.market) return;
  showFacts(forecast, state.models[state.frame], state.status, (marketNow() - new Date(forecast.as_of)) / 1000);
}

// Wiring

$("log-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  start();
});
$("log-out").addEventListener("click", () => logOut());
$("symbols").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  state.symbol = button.dataset.symbol;
  drawAll();
});
$("symbols").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const buttons = [...$("symbols").querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  buttons[(at + step + buttons.length) % buttons.length]?.focus();
  document.activeElement.click();
});
window.addEventListener("hashchange", () => {
  takeTokenFromAddress();
  state.close();
  start();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.forecasts[key()] && drawFocus());
setInterval(() => {
  drawClock();
  drawAge();
}, 1000);

takeTokenFromAddress();
start();
