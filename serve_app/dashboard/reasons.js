// Why something is as it is, in the reader's language: codes become sentences, free text of the server stays as it is.

import { symbolState } from "./condition.js";
import { dayAndClock, list, number, percent } from "./format.js";
import { compared, horizonWords } from "./skill.js";
import { has, t } from "./texts.js";

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const at = (iso) => dayAndClock(new Date(iso));

// ISO times inside a sentence become times as the page writes them.
export const readable = (text) => text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, at);

export function refusedWords(problem) {
  const key = `refused.${problem.reason_code}`;
  return has(key) ? t(key) : t("refused.other", { detail: problem.detail });
}

// What is wrong with a forecast, by its code; text without a code that is known here stays as the server wrote it.
function troubleWords(forecast, status, now) {
  const away = status.source?.connected === false;
  const code = forecast.reason_code || (away ? "source_away" : "late_bar");
  const late = now > new Date(forecast.next_bar_due) ? t("stale.late_bar", { since: at(forecast.as_of), due: at(forecast.next_bar_due) }) : "";
  if (code === "late_bar") return late || readable(forecast.reason);
  if (!has(`stale.${code}`)) return readable(forecast.reason);
  return [late, t(`stale.${code}`, { reason: status.source?.reason || t("no_reason") })].join(" ").trim();
}

// What stands above the forecast: [kind, sentence], the gravest first.
export function notices(state, condition, forecast, now) {
  const said = [];
  if (state.link === "lost") said.push(["late", t("notice.lost", { time: dayAndClock(now) })]);
  if (forecast?.stale) said.push(["late stale", `${t("notice.stale")} ${troubleWords(forecast, state.status, now)}`]);
  else if (symbolState(forecast, state.link) === "troubled") said.push(["late", troubleWords(forecast, state.status, now)]);
  else if (condition.source.connected === false) said.push(["late", t("stale.source_away", { reason: condition.source.reason || t("no_reason") })]);
  if (!condition.hasModel && condition.present) said.push(["late", t("notice.model", { frame: state.frame })]);
  const parts = outages(condition);
  if (parts.length && condition.fresh.length) said.push(["late", t("notice.partial", { list: parts.join("; ") })]);
  if (symbolState(forecast, state.link) === "closed") said.push(["info", t("notice.closed", { symbol: state.symbol, time: at(forecast.next_open || forecast.next_bar_due) })]);
  return said;
}

export function outages({ stale, missing, troubled }) {
  const parts = [];
  if (stale.length) parts.push(t("system.stale_list", { list: list(stale) }));
  if (missing.length) parts.push(t("system.missing_list", { list: list(missing) }));
  if (troubled.length) parts.push(t("system.troubled_list", { list: list(troubled) }));
  return parts;
}

// The direction as it may be shown: { side, word, why, more }. A side to take is shown for a fresh forecast only.
export function direction(signal, allowed, state, cards) {
  const none = (why, side = "none", more = "") => ({ side: "none", word: t(`side.${side}`), why, more });
  if (!allowed) return none(t("signal.hidden"), "hidden");
  if (state === "unknown") return none(t("signal.not_live"), "unknown");
  if (state === "stale") return none(t("signal.stale"));
  if (state === "troubled") return none(t("signal.troubled"));
  if (!signal) return none(t("signal.no_model"));
  if (state === "closed") return none(t("signal.market_closed"));
  if (signal.side !== "none") return { side: signal.side, word: t(`side.${signal.side}`), why: takenWords(signal), more: readable(signal.reason) };
  const code = signal.reason_code;
  if (!code || !has(`signal.${code}`)) return none(...firstAndAll(inWords(signal.reason)));
  const known = knownWords(code, signal, cards);
  return none(known, "none", inWords(signal.reason));
}

const takenWords = (signal) => capital(t("signal.taken", {
  edge: number(signal.expected_edge_bp, 1), horizon: horizonWords(signal.horizon_bars), confidence: percent(signal.confidence, 0),
}));

function knownWords(code, signal, cards) {
  if (code === "edge_below_spread") {
    if (signal.spread_bp === null || signal.expected_edge_bp === null) return inWords(signal.reason);
    return t("signal.edge_below_spread", { expected: number(signal.expected_edge_bp + signal.spread_bp, 2), spread: number(signal.spread_bp, 2) });
  }
  const card = cards.find((c) => c.target === `sign${signal.horizon_bars}` && c.metric !== "auc" && c.value !== null);
  return code === "no_gate" && card ? t("signal.no_gate_because", { skill: compared(card) }) : t(`signal.${code}`);
}

function firstAndAll(text) {
  const first = text.split(/; |\. (?=[A-Z0-9])/)[0];
  return [first, "none", text.length - first.length < 20 ? "" : text];
}

// The gate's own names for its targets, as people say them.
function inWords(reason) {
  const named = readable(reason.replace(/^no edge found: /i, ""))
    .replace(/\bsign1\b/g, "next-bar direction")
    .replace(/\bsign(\d+)\b/g, "$1-bar direction")
    .replace(/log_loss/g, "log-loss")
    .replace(/-(?=\d)/g, "−");
  return capital(named);
}
