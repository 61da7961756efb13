// Skill in plain words, the sentence that also stands in the API, and the lists of what was measured before and live.

import { $, make, refill } from "./elements.js";
import { date, number, percent, signed } from "./format.js";
import { has, t } from "./texts.js";

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const day = (iso) => date(new Date(iso));
const orItself = (group, name) => (has(`${group}.${name}`) ? t(`${group}.${name}`) : name);

export const horizonWords = (bars) => (bars === 1 ? t("horizon.next") : t("horizon", { n: number(bars) }, bars));

export function targetWords(target) {
  const [, kind, bars] = /^(rv|r|sign)(\d+)$/.exec(target) ?? [];
  return kind ? t(`target.${kind}`, { horizon: horizonWords(Number(bars)) }) : target;
}

// "3.1% better than HAR by QLIKE"
function against(value, baseline, metric) {
  const said = Math.abs(value) < 0.0005 ? "skill.same" : value > 0 ? "skill.better" : "skill.worse";
  return t(said, { share: percent(Math.abs(value), 1), baseline: orItself("baseline", baseline), metric: orItself("metric", metric) });
}

const tail = (tStatistic, n) => {
  const parts = [];
  if (tStatistic !== null && tStatistic !== undefined) parts.push(`t ${signed(tStatistic, 1)}`);
  if (n) parts.push(`n = ${number(n)}`);
  return parts.length ? ` (${parts.join(", ")})` : "";
};

// A measured card in words, without its target.
export function compared(card) {
  if (card.metric === "auc") return t("skill.auc", { value: number(card.value, 3), coin: number(0.5, 3) }) + tail(card.t_statistic, card.n);
  const said = against(card.value, card.baseline, card.metric);
  const noEdge = card.target.startsWith("sign") && !card.passed_gate;
  return (noEdge ? t("skill.no_edge", { compared: said }) : said) + tail(card.t_statistic, card.n);
}

const cardWords = (card) => (card.value === null ? t("skill.not_measured", { reason: card.reason || "" }).trim() : `${compared(card)}.`);

// How it has done live: what fell into the 80 % range, and how it compares with its baseline. [] when nothing is known.
function liveWords(card) {
  const since = card.live_since ? day(card.live_since) : t("record.start");
  const said = [];
  if (hasCoverage(card)) said.push(t("record.coverage_line", { share: percent(card.live_coverage80, 1), n: number(card.live_n), since }, card.live_n));
  if (hasLiveSkill(card)) said.push(`${liveSkill(card)}.`);
  return said.length || !card.live_reason ? said : [capital(card.live_reason)];
}

const hasCoverage = (card) => card.live_coverage80 !== null && card.live_coverage80 !== undefined;
const hasLiveSkill = (card) => card.live_value !== null && card.live_value !== undefined;

function liveSkill(card) {
  const since = card.live_since ? day(card.live_since) : t("record.start");
  return t("record.skill", { since, compared: against(card.live_value, card.live_baseline || card.baseline, card.metric) + tail(card.live_t, card.live_n) });
}

export function showSkill(cards) {
  refill($("skill"), cards.map((card) => [cardWords(card), liveWords(card)]), () => cards.map(skillCard));
  const first = cards.find((card) => card.period_from);
  $("skill-note").textContent = first ? t("skill.period", { from: day(first.period_from), to: day(first.period_to) }) : "";
}

function skillCard(card) {
  const gate = make("span", card.passed_gate ? "gate passed" : "gate", t(card.passed_gate ? "skill.gate_passed" : "skill.baseline_serves"));
  const live = liveWords(card).map((said) => make("p", "small", said));
  return make("li", "", make("p", "skill-title", make("b", "", targetWords(card.target)), gate), skillBar(card), make("p", "", capital(cardWords(card))), ...live);
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

// The tile: of the longest horizon the live coverage of its 80 % range, and its live skill.
export function showRecord(cards, bars) {
  const covered = cards.find((card) => card.target === `r${bars}` && hasCoverage(card));
  const own = cards.filter((card) => [`rv${bars}`, `r${bars}`].includes(card.target));
  const skilled = own.find(hasLiveSkill);
  const waiting = own.find((card) => card.live_reason);
  $("record-share").textContent = covered ? percent(covered.live_coverage80, 1) : "";
  $("record-of").textContent = covered ? t("record.coverage", { n: number(covered.live_n) }, covered.live_n) : t("record.none");
  $("record-bar").hidden = !covered;
  if (covered) $("record-fill").style.width = `${(covered.live_coverage80 * 100).toFixed(1)}%`;
  $("record-skill").textContent = skilled ? `${targetWords(skilled.target)}. ${liveSkill(skilled)}.` : waiting ? capital(waiting.live_reason) : "";
}
