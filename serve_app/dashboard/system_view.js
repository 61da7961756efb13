// The state of the system and where the forecasts come from: each part with its reason.

import { $, make, refill, say } from "./elements.js";
import { DASH, dayAndClock, list, span, zoneName } from "./format.js";
import { notices, outages } from "./reasons.js";
import { has, t } from "./texts.js";

const DOTS = { live: "fresh", closed: "closed", lost: "late", partial: "late", source: "late" };

export function showCondition(condition, detail) {
  say("link-text", t(`condition.${condition.word}`));
  $("link").title = detail;
  $("link-dot").className = `dot ${DOTS[condition.word] ?? "none"}`;
}

export function showNotices(state, condition, forecast, now) {
  const said = notices(state, condition, forecast, now);
  refill($("notices"), said, () => said.map(([kind, text]) => make("li", kind, text)));
}

export function showSystem(state, condition, forecast) {
  const rows = [
    [state.link === "live" ? "fresh" : "late", t("system.server"), t(`system.${state.link === "idle" ? "connecting" : state.link}`)],
    sourceRow(condition.source, state.status.transport),
    marketRow(forecast),
    [condition.hasModel ? "fresh" : "late", t("system.model", { frame: state.frame }), t(condition.hasModel ? "system.serving" : "system.no_model")],
    forecastsRow(state, condition),
  ].filter(Boolean);
  refill($("system"), rows, () => rows.map(([dot, name, value]) =>
    make("div", "", make("dt", "", make("i", `dot ${dot}`), name), make("dd", "", value))));
  $("problems-title").hidden = !condition.problems.length;
  refill($("problems"), condition.problems, () => condition.problems.map(([name, problem]) => make("li", "", make("b", "", name), ` ${problem}`)));
}

function sourceRow({ connected, reason }, transport) {
  if (connected === undefined) return ["none", t("system.source"), t("system.unknown")];
  if (connected) return ["fresh", t("system.source"), transport ? t("system.connected", { transport }) : t("system.live")];
  return ["late", t("system.source"), t("system.away", { reason: reason || t("no_reason") })];
}

// Unknown to servers that do not say it; then there is no such row.
function marketRow(forecast) {
  if (forecast?.market_open === undefined) return null;
  const time = dayAndClock(new Date(forecast.next_open || forecast.next_bar_due));
  return [forecast.market_open ? "fresh" : "closed", t("system.market"), forecast.market_open ? t("system.open") : t("system.closed", { time })];
}

function forecastsRow(state, condition) {
  const good = condition.closed ? condition.present : condition.fresh.length;
  const said = t("system.fresh", { fresh: good, all: state.symbols.length });
  return [good === state.symbols.length ? "fresh" : "late", t("system.forecasts"), [said, ...outages(condition)].join("; ")];
}

export function showFacts(forecast, model) {
  const market = has(`market.${forecast.market}`) ? t(`market.${forecast.market}`) : forecast.market;
  const trained = model?.trained_until;
  const facts = [
    [t("facts.market"), market],
    [t("facts.model"), forecast.model_id, "code"],
    [t("facts.kind"), model?.kind ?? DASH],
    [t("facts.trained"), trained ? dayAndClock(new Date(trained)) : DASH, "", "model-age"],
    [t("facts.data"), forecast.data_version, "code"],
    [t("facts.newest"), dayAndClock(new Date(forecast.as_of)), "", "data-age"],
  ];
  refill($("facts"), facts, () => facts.map(([name, value, kind, age]) => {
    const since = age ? make("span", "age") : null;
    if (since) since.id = age;
    return make("div", "", make("dt", "", name), make("dd", kind ?? "", value, since));
  }));
}

// `now`: market time. Called every second.
export function showAges(forecast, model, now) {
  const ago = (iso) => (iso ? ` · ${t("ago", { span: span((now - new Date(iso)) / 1000) })}` : "");
  say("data-age", ago(forecast.as_of));
  say("model-age", ago(model?.trained_until));
}

export function showClock(now, speed, due) {
  say("zone-name", t("clock.market", { zone: zoneName() }));
  say("market-time", dayAndClock(now) + (speed === 1 ? "" : ` · ${t("clock.speed", { n: speed })}`));
  const left = due ? (new Date(due) - now) / 1000 / speed : null;
  say("next-bar", left === null ? DASH : left > 0 ? t("clock.in", { span: span(left) }) : t("clock.due"));
}

export function showWaiting(state, condition) {
  const why = state.link === "lost" ? t("waiting.lost", { detail: state.detail })
    : state.link !== "live" ? t("waiting.connecting")
    : condition.hasModel ? t("waiting.symbol", { symbol: state.symbol, frame: state.frame }) : t("waiting.model");
  say("waiting-text", why);
  const series = state.status.series?.[`${state.symbol}/${state.frame}`]?.reason;
  const about = condition.problems.filter(([name]) => !name.startsWith("bars ") || name.startsWith(`bars ${state.symbol}/`));
  const reasons = [...new Set([series, ...about.map(([, problem]) => problem)])].filter(Boolean);
  refill($("waiting-list"), reasons, () => reasons.map((reason) => make("li", "", reason)));
}
