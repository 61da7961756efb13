// Numbers and times as people of the chosen language read them, by Intl. A missing value is a dash, never a zero.

export const DASH = "–";
const STYLES = { en: { locale: "en-GB", units: "narrow" }, uk: { locale: "uk-UA", units: "short" } };

let style = STYLES.en;
let timeZone = "UTC"; // undefined: the reader's own
const made = new Map();

export function setLanguage(language) {
  style = STYLES[language];
  made.clear();
}

export function setZone(zone) {
  timeZone = zone === "utc" ? "UTC" : undefined;
  made.clear();
}

function by(kind, options) {
  const key = JSON.stringify(options);
  if (!made.has(key)) made.set(key, new kind(style.locale, options));
  return made.get(key);
}

const missing = (x) => x === null || x === undefined || Number.isNaN(x);
const fixed = (decimals) => ({ minimumFractionDigits: decimals, maximumFractionDigits: decimals });

function written(x, options) {
  return missing(x) ? DASH : by(Intl.NumberFormat, options).format(x).replace("-", "−");
}

export const price = (x, digits) => written(x, { ...fixed(digits), useGrouping: false });
export const number = (x, decimals = 0) => written(x, fixed(decimals));
export const signed = (x, decimals) => written(x, { ...fixed(decimals), signDisplay: "always" });
export const percent = (x, decimals = 2) => written(x, { ...fixed(decimals), style: "percent" });
export const signedPercent = (x, decimals = 2) => written(x, { ...fixed(decimals), style: "percent", signDisplay: "exceptZero" });
export const times = (x) => (missing(x) ? DASH : `${number(x, 2)}×`);
export const list = (items) => by(Intl.ListFormat, { type: "unit", style: "short" }).format(items);

const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const DAY = { day: "numeric", month: "short" };
const moment = (when, options) => by(Intl.DateTimeFormat, { ...options, timeZone }).format(when);

export const clock = (when) => moment(when, CLOCK);
export const day = (when) => moment(when, DAY);
export const date = (when) => moment(when, { ...DAY, year: "numeric" });
export const dayAndClock = (when) => moment(when, { weekday: "short", ...DAY, ...CLOCK });
export const weekdayAndClock = (when) => moment(when, { weekday: "short", ...CLOCK });

export function zoneName() {
  if (timeZone) return timeZone;
  const parts = new Intl.DateTimeFormat(style.locale, { timeZoneName: "short" }).formatToParts(new Date());
  return parts.find((part) => part.type === "timeZoneName").value;
}

// Seconds -> two units at most: "48s", "12m", "3h 5m", "2d 4h".
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const part = (value, unit) => written(value, { style: "unit", unit, unitDisplay: style.units });
  const parts = (whole, unit, rest, small) => [part(whole, unit), rest ? part(rest, small) : ""].filter(Boolean).join(" ");
  if (s < 90) return part(s, "second");
  if (s < 5400) return part(Math.round(s / 60), "minute");
  if (s < 172800) return parts(Math.floor(s / 3600), "hour", Math.floor((s % 3600) / 60), "minute");
  return parts(Math.floor(s / 86400), "day", Math.floor((s % 86400) / 3600), "hour");
}
