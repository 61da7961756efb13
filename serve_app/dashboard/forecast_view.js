// The chosen symbol's forecast beside its chart: headline, tiles, horizons. Holds no figure that the API does not give.

import { $, make, refill } from "./elements.js";
import { DASH, dayAndClock, percent, price, signedPercent, times, weekdayAndClock, zoneName } from "./format.js";
import { horizonWords } from "./skill.js";
import { t } from "./texts.js";

export const farthest = (forecast) => forecast.horizons.at(-1);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function quantile(quantiles, level) {
  const key = Object.keys(quantiles ?? {}).find((k) => Number(k) === level);
  return key === undefined ? null : quantiles[key];
}

export function showHeadline(forecast, rows, digits) {
  const move = rows.length > 1 ? rows.at(-1)[4] / rows.at(-2)[4] - 1 : null;
  $("symbol").textContent = forecast.symbol;
  $("frame").textContent = forecast.timeframe;
  const madeUp = forecast.market === "simulated" || forecast.market === "recorded";
  $("market").textContent = madeUp ? t(`market.${forecast.market}`) : "";
  $("price").textContent = price(forecast.last_close, digits);
  $("move").textContent = move === null ? "" : t("price.last_bar", { move: signedPercent(move) });
  $("move").className = move > 0 ? "up" : move < 0 ? "down" : "";
  $("as-of").textContent = t("as_of", { time: `${dayAndClock(new Date(forecast.as_of))} ${zoneName()}` });
  $("sentence").textContent = sentence(forecast, digits);
}

// The forecast in one sentence; it also describes the chart to those who do not see it.
function sentence(forecast, digits) {
  const far = farthest(forecast);
  if (!far.price_quantiles) return far.reason || t("sentence.none");
  const [low, high] = [0.1, 0.9].map((level) => price(quantile(far.price_quantiles, level), digits));
  const time = `${weekdayAndClock(new Date(far.target_time))} ${zoneName()}`;
  return t("sentence.range", { time, horizon: horizonWords(far.bars), low, high });
}

// Volatility of the longest horizon against this symbol's usual level, on a scale of doublings: a half, usual, twice.
export function showVolatility(forecast) {
  const { bars, volatility, volatility_ratio: ratio } = farthest(forecast);
  const known = ratio !== null && ratio !== undefined;
  $("volatility-title").textContent = t("volatility", { horizon: horizonWords(bars) });
  $("volatility").textContent = percent(volatility, 3);
  const level = ratio >= 1.1 ? "above" : ratio <= 0.9 ? "below" : "near";
  $("volatility-usual").textContent = known ? t("volatility.usual", { times: times(ratio) }) : "";
  $("volatility-level").textContent = known ? capital(t(`volatility.${level}`)) : t("volatility.unknown");
  $("volatility-level").className = `level ${known ? level : ""}`;
  $("gauge").hidden = !known;
  if (known) $("gauge-mark").style.left = `${(50 + 50 * Math.max(-1, Math.min(1, Math.log2(ratio)))).toFixed(1)}%`;
}

export function showDirection({ side, word, why, more }) {
  $("signal").className = `figure ${side}`;
  $("signal").textContent = word;
  $("signal-why").textContent = why;
  $("signal-more").hidden = !more;
  $("signal-all").textContent = more;
}

export function showHorizons(forecast, digits) {
  const columns = [
    t("column.horizon"), t("column.ends", { zone: zoneName() }), t("column.volatility"), t("column.usual"), t("column.median"),
    t("column.range", { share: percent(0.8, 0) }), t("column.range", { share: percent(0.9, 0) }), t("column.p_up"),
  ];
  refill($("columns"), columns, () => columns.map((name) => {
    const head = make("th", "", name);
    head.scope = "col";
    return head;
  }));
  $("horizons").replaceChildren(...forecast.horizons.map((horizon) => horizonRow(horizon, digits, columns)));
}

function horizonRow(h, digits, columns) {
  const p = (level) => price(quantile(h.price_quantiles, level), digits);
  const cells = [
    weekdayAndClock(new Date(h.target_time)), percent(h.volatility, 3), ratioCell(h.volatility_ratio), p(0.5),
    `${p(0.1)} … ${p(0.9)}`, `${p(0.05)} … ${p(0.95)}`, h.p_up === null ? DASH : percent(h.p_up, 1),
  ].map((content, i) => {
    const cell = make("td", "", content);
    cell.dataset.column = columns[i + 1]; // a phone shows it beside the figure
    return cell;
  });
  const head = make("th", "", horizonWords(h.bars));
  head.scope = "row";
  const row = make("tr", "", head, ...cells);
  if (h.reason) row.title = h.reason;
  return row;
}

function ratioCell(ratio) {
  const meter = make("span", "meter", make("i", ratio > 1 ? "more" : "less"));
  const share = ratio === null ? 0 : Math.min(1, Math.abs(Math.log2(ratio)));
  meter.firstChild.style.width = `${(share * 50).toFixed(1)}%`;
  return make("span", "ratio", times(ratio), meter);
}

export function showHud(row, digits) {
  if (!row) return $("hud").replaceChildren();
  const names = ["chart.open", "chart.high", "chart.low", "chart.close"];
  const parts = names.flatMap((name, i) => [make("small", "", t(name)), ` ${price(row[i + 1], digits)} `]);
  return $("hud").replaceChildren(make("b", "", dayAndClock(new Date(row[0]))), " ", ...parts);
}
