// Numbers and times as people read them. Times are UTC; a missing value is a dash, never a zero.

export const DASH = "–";
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

const two = (n) => String(n).padStart(2, "0");
const missing = (x) => x === null || x === undefined || Number.isNaN(x);

export const price = (x, digits) => (missing(x) ? DASH : x.toFixed(digits));
export const percent = (x, decimals = 2) => (missing(x) ? DASH : `${(x * 100).toFixed(decimals)} %`.replace("-", "−"));
export const times = (x) => (missing(x) ? DASH : `${x.toFixed(2)} ×`);

export function signedPercent(x, decimals = 2) {
  return missing(x) ? DASH : `${x > 0 ? "+" : x < 0 ? "−" : "±"}${Math.abs(x * 100).toFixed(decimals)} %`;
}

export function clock(moment) {
  return `${two(moment.getUTCHours())}:${two(moment.getUTCMinutes())}`;
}

export function day(moment) {
  return `${moment.getUTCDate()} ${MONTHS[moment.getUTCMonth()]}`;
}

export function dayAndClock(moment) {
  return `${DAYS[moment.getUTCDay()]} ${day(moment)}, ${clock(moment)}`;
}

export function weekdayAndClock(moment) {
  return `${DAYS[moment.getUTCDay()]} ${clock(moment)}`;
}

// Seconds -> "48 s", "12 min", "3 h 05 min", "2 d 4 h".
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function bars(n) {
  return n === 1 ? "next bar" : `next ${n} bars`;
}
