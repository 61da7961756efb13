// What stands beside the chart: symbol list, headline, horizons, direction, skill, origin. Text only, never markup.

import { DASH, bars, dayAndClock, percent, price, signedPercent, span, times, weekdayAndClock } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
export const $ = (id) => document.getElementById(id);

export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const farthest = (forecast) => forecast.horizons.at(-1);

function quantile(quantiles, level) {
  const key = Object.keys(quantiles ?? {}).find((k) => Number(k) === level);
  return key === undefined ? null : quantiles[key];
}

export function lastMove(rows) {
  return rows && rows.length > 1 ? rows.at(-1)[4] / rows.at(-2)[4] - 1 : null;
}

// The symbol list

export function symbolRow(code, chosen) {
  const button = make("button", "symbol");
  button.type = "button";
  button.dataset.symbol = code;
  button.setAttribute("aria-pressed", String(chosen));
  button.append(
    make("i", "dot"), make("b", "code", code), make("span", "last"), make("span", "spark"),
    make("span", "vol"), make("span", "chip"),
  );
  return make("li", "", button);
}

export function fillSymbolRow(button, forecast, signal, rows, digits, live) {
  const state = !forecast ? "none" : forecast.stale ? "late" : live ? "fresh" : "none";
  button.querySelector(".dot").className = `dot ${state}`;
  button.querySelector(".last").textContent = forecast ? price(forecast.last_close, digits) : DASH;
  const ratio = forecast ? farthest(forecast).volatility_ratio : null;
  const vol = button.querySelector(".vol");
  vol.textContent = forecast ? `vol ${times(ratio)}` : "no forecast yet";
  vol.classList.toggle("high", ratio >= 1.25);
  const chip = button.querySelector(".chip");
  const side = signal?.side ?? "";
  chip.textContent = !signal ? "" : side === "none" ? "no edge" : side;
  chip.className = `chip ${side}`;
  button.querySelector(".spark").replaceChildren(sparkline((rows ?? []).slice(-48).map((row) => row[4])));
  const words = { fresh: "fresh", late: "stale", none: "not live" }[state];
  button.setAttribute("aria-label", `${code(button)}, ${words}, last ${button.querySelector(".last").textContent}, ${vol.textContent} of usual, ${chip.textContent}`);
}

const code = (button) => button.dataset.symbol;

function sparkline(values) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  if (values.length < 2) return svg;
  const low = Math.min(...values);
  const high = Math.max(...values);
  const points = values.map((v, i) => `${((i / (values.length - 1)) * 100).toFixed(1)},${(22 - (20 * (v - low)) / (high - low || 1)).toFixed(1)}`);
  const path = document.createElementNS(SVG, "polyline");
  path.setAttribute("points", points.join(" "));
  svg.append(path);
  return svg;
}

// The middle

export function showHeadline(forecast, rows, digits) {
  $("symbol").textContent = forecast.symbol;
  $("frame").textContent = forecast.timeframe;
  $("price").textContent = price(forecast.last_close, digits);
  const move = lastMove(rows);
  $("move").textContent = move === null ? "" : `${signedPercent(move)} last bar`;
  $("move").className = move > 0 ? "up" : move < 0 ? "down" : "";
  $("sentence").textContent = sentence(forecast, digits);
  $("stale").hidden = !forecast.stale;
  $("stale").textContent = forecast.stale ? `Stale. ${readable(forecast.reason) || "The next bar is overdue."}` : "";
}

// ISO times inside a sentence become times as the page writes them.
function readable(text) {
  return text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, (iso) => dayAndClock(new Date(iso)));
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// The forecast in one sentence; it also describes the chart to those who do not see it.
export function sentence(forecast, digits) {
  const far = farthest(forecast);
  if (!far.price_quantiles) return far.reason || "No range for this horizon.";
  const [low, high] = [0.1, 0.9].map((level) => price(quantile(far.price_quantiles, level), digits));
  const ratio = far.volatility_ratio;
  const level = ratio === null ? "" : ` Volatility is ${ratio >= 1.1 ? "above" : ratio <= 0.9 ? "below" : "near"} its usual level.`;
  return `By ${weekdayAndClock(new Date(far.target_time))} UTC (${bars(far.bars)}) the close lies between ${low} and ${high} in 8 of 10 cases.${level}`;
}

export function showHorizons(forecast, digits) {
  $("horizons").replaceChildren(
    ...forecast.horizons.map((h) => {
      const p = (level) => price(quantile(h.price_quantiles, level), digits);
      const cells = [
        weekdayAndClock(new Date(h.target_time)), percent(h.volatility, 3), ratioCell(h.volatility_ratio), p(0.5),
        `${p(0.1)} … ${p(0.9)}`, `${p(0.05)} … ${p(0.95)}`, h.p_up === null ? DASH : percent(h.p_up, 1),
      ];
      const head = make("th", "", bars(h.bars));
      head.scope = "row";
      const row = make("tr", "", head, ...cells.map((cell) => make("td", "", cell)));
      if (h.reason) row.title = h.reason;
      return row;
    }),
  );
}

function ratioCell(ratio) {
  const meter = make("span", "meter", make("i", ratio > 1 ? "more" : "less"));
  const share = ratio === null ? 0 : Math.min(1, Math.abs(Math.log2(ratio)));
  meter.firstChild.style.width = `${(share * 50).toFixed(1)}%`;
  return make("span", "ratio", times(ratio), meter);
}

export function showHud(row, digits) {
  if (!row) return $("hud").replaceChildren();
  const part = (name, value) => [make("small", "", name), ` ${price(value, digits)} `];
  $("hud").replaceChildren(
    make("b", "", dayAndClock(new Date(row[0]))), " ",
    ...part("O", row[1]), ...part("H", row[2]), ...part("L", row[3]), ...part("C", row[4]),
  );
}

// The side

export function showSignal(signal, allowed) {
  const side = signal?.side ?? "none";
  $("signal").className = `signal ${side}`;
  $("signal").textContent = !allowed ? "Not in this token" : !signal ? DASH : side === "none" ? "No edge found" : side === "buy" ? "Buy" : "Sell";
  const whole = !allowed ? "Its scopes do not include signals." : signal ? inWords(signal.reason) : "";
  const first = whole.split(/; |\. (?=[A-Z0-9])/)[0];
  const figures = !signal || side === "none" ? [] : [
    `${signal.expected_edge_bp?.toFixed(1) ?? DASH} bp net of spread over the ${bars(signal.horizon_bars)}`,
    `confidence ${percent(signal.confidence, 0)}`,
  ];
  $("signal-why").textContent = [first, ...figures].join(" · ");
  $("signal-more").hidden = whole.length - first.length < 20;
  $("signal-all").textContent = whole;
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

export function showSkill(cards) {
  $("skill").replaceChildren(...cards.map(skillCard));
  const first = cards.find((card) => card.period_from);
  $("skill-note").textContent = first
    ? `Out of sample, ${first.period_from.slice(0, 10)} to ${first.period_to.slice(0, 10)}. t at or below −2: better beyond chance.`
    : "";
}

function skillCard(card) {
  const [title, ...rest] = (card.in_words || card.target).split(": ");
  const gate = make("span", card.passed_gate ? "gate passed" : "gate", card.passed_gate ? "gate passed" : "baseline serves");
  const live = card.live_coverage80 === null ? null
    : make("p", "small", `Live: ${percent(card.live_coverage80, 1)} of ${card.live_n} outcomes since ${card.live_since?.slice(0, 10) ?? "its start"} fell into the 80 % range.`);
  return make("li", "", make("p", "skill-title", make("b", "", title), gate), skillBar(card), make("p", "", capital(rest.join(": ") || card.reason || "")), live);
}

// A bar from the middle: right is better than the baseline, left is worse; full at 10 %.
function skillBar(card) {
  if (card.value === null || card.metric === "auc") return null;
  const fill = make("i", card.value >= 0 ? "better" : "worse");
  fill.style.width = `${(Math.min(1, Math.abs(card.value) / 0.1) * 50).toFixed(1)}%`;
  const bar = make("div", "bar", fill);
  bar.setAttribute("aria-hidden", "true");
  return bar;
}

export function showFacts(forecast, model, status, age) {
  const source = status.source ?? {};
  const connected = source.connected === false ? `away: ${source.reason || "no reason given"}` : "connected";
  const facts = [
    ["Model", forecast.model_id, "code"],
    ["Kind", model ? model.kind : DASH],
    ["Trained until", model?.trained_until ? dayAndClock(new Date(model.trained_until)) : DASH],
    ["Data version", forecast.data_version, "code"],
    ["Newest bar", `${dayAndClock(new Date(forecast.as_of))} · ${span(age)} ago`],
    ["Source", [status.transport ?? source.transport, connected].filter(Boolean).join(", ")],
  ];
  $("facts").replaceChildren(
    ...facts.map(([name, value, kind]) => make("div", "", make("dt", "", name), make("dd", kind ?? "", value ?? DASH))),
  );
}

export function showWaiting(status, link) {
  const problems = Object.values(status.problems ?? {});
  $("waiting-text").textContent = link === "live"
    ? "History is being loaded and the first model is made from it. This page fills by itself."
    : "Connecting to the server.";
  $("waiting-list").replaceChildren(...problems.map((problem) => make("li", "", String(problem))));
}
