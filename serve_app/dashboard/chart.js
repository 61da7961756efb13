// Candles with the forecast fan, by Plotly. The x axis counts bars: 0 is the newest closed one, weekends take no room.

import { clock, day, price, weekdayAndClock } from "./format.js";
import { horizonWords } from "./skill.js";

const FAN = [["0.05", "0.95", "--fan90"], ["0.1", "0.9", "--fan80"], ["0.25", "0.75", "--fan50"]];
const STEPS = 40;

// Plotly is large and comes after the page: until then the newest call waits.
const loaded = window.Plotly || new Promise((go) => document.getElementById("plotly").addEventListener("load", go));
let newest = [];

// A colour of the sheet as the theme of the moment has it: light-dark() is resolved by using it.
function colour(name) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(${name})`;
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

// rows: [close_time, open, high, low, close], oldest first. forecast: the API's body.
export async function draw(...call) {
  newest = call;
  await loaded;
  if (call === newest) paint(...call);
}

function paint(element, rows, forecast, digits, shown, onHover) {
  const visible = rows.slice(-shown);
  const traces = [...fan(forecast), candles(visible), median(forecast), marks(forecast)];
  const config = { displayModeBar: false, responsive: true, doubleClick: false, showTips: false };
  Plotly.react(element, traces, layout(element, visible, forecast, digits), config);
  element.removeAllListeners?.("plotly_hover");
  element.removeAllListeners?.("plotly_unhover");
  element.on("plotly_hover", (event) => onHover(rowAt(visible, event.points)));
  element.on("plotly_unhover", () => onHover(visible.at(-1)));
  element.dataset.asOf = forecast.as_of;
}

function rowAt(visible, points) {
  const x = points.find((point) => point.x <= 0)?.x;
  return visible[visible.length - 1 + (x ?? 0)] ?? visible.at(-1);
}

function candles(rows) {
  const column = (i) => rows.map((row) => row[i]);
  const side = (name) => ({ line: { color: colour(name), width: 1 }, fillcolor: colour(name) });
  return {
    type: "candlestick", x: rows.map((_, i) => i - rows.length + 1), name: "bars",
    open: column(1), high: column(2), low: column(3), close: column(4),
    increasing: side("--up"), decreasing: side("--down"), whiskerwidth: 0, hoverinfo: "none",
  };
}

// The horizons' quantile at every drawn step: exact at the horizons, between them linear in the square root of time.
function quantilePath(forecast, level) {
  const known = [[0, 0], ...forecast.horizons.filter((h) => h.quantiles).map((h) => [h.bars, h.quantiles[find(h.quantiles, level)]])];
  const last = known.at(-1)[0];
  const path = [];
  for (let step = 0; step <= STEPS; step += 1) {
    const x = last * (step / STEPS) ** 2;
    const next = Math.max(1, known.findIndex(([at]) => at >= x - 1e-9));
    const [x0, q0] = known[next - 1];
    const [x1, q1] = known[next];
    const share = (Math.sqrt(x) - Math.sqrt(x0)) / (Math.sqrt(x1) - Math.sqrt(x0));
    path.push([x, forecast.last_close * Math.exp(q0 + share * (q1 - q0))]);
  }
  return path;
}

function find(quantiles, level) {
  return Object.keys(quantiles).find((key) => Number(key) === Number(level));
}

function hasFan(forecast) {
  return forecast.horizons.some((h) => h.quantiles);
}

function fan(forecast) {
  if (!hasFan(forecast)) return [];
  return FAN.map(([low, high, name]) => {
    const outline = [...quantilePath(forecast, low), ...quantilePath(forecast, high).reverse()];
    return {
      type: "scatter", mode: "lines", x: outline.map((p) => p[0]), y: outline.map((p) => p[1]),
      fill: "toself", fillcolor: colour(name), line: { width: 0 }, hoverinfo: "skip",
    };
  });
}

function median(forecast) {
  const path = hasFan(forecast) ? quantilePath(forecast, "0.5") : [];
  return {
    type: "scatter", mode: "lines", x: path.map((p) => p[0]), y: path.map((p) => p[1]),
    line: { color: colour("--accent"), width: 1.5, dash: "dot" }, hoverinfo: "skip",
  };
}

// Where the model really spoke: the 80 % interval at each horizon, as a bar with ends.
function marks(forecast) {
  const known = forecast.horizons.filter((h) => h.price_quantiles);
  const at = (h, level) => h.price_quantiles[find(h.price_quantiles, level)];
  const middle = known.map((h) => at(h, "0.5"));
  return {
    type: "scatter", mode: "markers", x: known.map((h) => h.bars), y: middle, hoverinfo: "none",
    marker: { color: colour("--accent"), size: 5 },
    error_y: {
      type: "data", symmetric: false, color: colour("--accent"), thickness: 1.2, width: 3,
      array: known.map((h, i) => at(h, "0.9") - middle[i]), arrayminus: known.map((h, i) => middle[i] - at(h, "0.1")),
    },
  };
}

function layout(element, rows, forecast, digits) {
  const last = Math.max(...forecast.horizons.map((h) => h.bars));
  const narrow = element.clientWidth < 560;
  const font = { family: getComputedStyle(document.body).fontFamily, size: narrow ? 10.5 : 11.5, color: colour("--muted") };
  const axis = { gridcolor: colour("--grid"), zeroline: false, fixedrange: true, tickfont: font, ticks: "", showline: false };
  return {
    autosize: true, showlegend: false, hovermode: "x", dragmode: false, font,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 4, r: narrow ? 54 : 64, t: 6, b: 34 },
    xaxis: { ...axis, ...ticks(rows, forecast, narrow), range: [1 - rows.length - 0.7, last * 1.04 + 1], rangeslider: { visible: false }, showgrid: true },
    yaxis: { ...axis, side: "right", ...priceAxis(rows, forecast, digits, narrow ? 5 : 7) },
    shapes: [line(forecast.last_close, last), edge()],
    annotations: labels(forecast, digits, font),
  };
}

function line(level, last) {
  return { type: "line", xref: "x", x0: 0, x1: last * 1.04 + 1, y0: level, y1: level, line: { color: colour("--ink"), width: 0.8, dash: "dot" } };
}

function edge() {
  return { type: "line", x0: 0.5, x1: 0.5, yref: "paper", y0: 0, y1: 1, line: { color: colour("--line"), width: 1 } };
}

// Price tags in the right margin: now, and the ends of the 80 % range of the longest horizon.
function labels(forecast, digits, font) {
  const tag = (y, text, back, ink) => ({
    xref: "paper", x: 1, xanchor: "left", y, yanchor: "middle", showarrow: false, text,
    bgcolor: back, font: { ...font, color: ink }, borderpad: 2, xshift: 2,
  });
  return [
    ...rangeEnds(forecast).map((y) => tag(y, price(y, digits), colour("--accent-soft"), colour("--accent"))),
    tag(forecast.last_close, price(forecast.last_close, digits), colour("--ink"), colour("--paper")),
  ];
}

function rangeEnds(forecast) {
  const far = forecast.horizons.filter((h) => h.price_quantiles).at(-1)?.price_quantiles;
  return far ? ["0.1", "0.9"].map((level) => far[find(far, level)]) : [];
}

// Round prices, at most `count` of them; where a price tag stands, the line has no label.
function priceAxis(rows, forecast, digits, count) {
  const [low, high] = priceRange(rows, forecast);
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / step);
  const tickvals = Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
  const tags = [forecast.last_close, ...rangeEnds(forecast)];
  const free = (y) => tags.every((tag) => Math.abs(y - tag) > (high - low) * 0.06);
  return { range: [low, high], tickvals, ticktext: tickvals.map((y) => (free(y) ? price(y, digits) : "")) };
}

function priceRange(rows, forecast) {
  const fanEnds = forecast.horizons.flatMap((h) => Object.values(h.price_quantiles ?? {}));
  const low = Math.min(...rows.map((row) => row[3]), ...fanEnds);
  const high = Math.max(...rows.map((row) => row[2]), ...fanEnds);
  const room = (high - low) * 0.05;
  return [low - room, high + room];
}

function ticks(rows, forecast, narrow) {
  const every = Math.max(1, Math.ceil(rows.length / (narrow ? 4 : 8)));
  const tickvals = [];
  const ticktext = [];
  let lastDay = "";
  for (let i = (rows.length - 1) % every; i < rows.length; i += every) {
    const moment = new Date(rows[i][0]);
    tickvals.push(i - rows.length + 1);
    ticktext.push(lastDay === day(moment) ? clock(moment) : `${clock(moment)}<br>${day(moment)}`);
    lastDay = day(moment);
  }
  const far = forecast.horizons.at(-1);
  tickvals.push(far.bars);
  ticktext.push(`${weekdayAndClock(new Date(far.target_time))}<br>${narrow ? `+${far.bars}` : horizonWords(far.bars)}`);
  return { tickvals, ticktext, tickangle: 0 };
}
