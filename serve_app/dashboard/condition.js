// What state each symbol and the whole system is in. Pure: knows no elements and no words.

// fresh | stale | closed | missing, troubled when something else is wrong, or unknown while nothing is heard from the server.
// Only a fresh one has a side to take.
export function symbolState(forecast, link) {
  if (!forecast) return "missing";
  if (forecast.stale) return "stale";
  if (link !== "live") return "unknown";
  if (forecast.reason_code && forecast.reason_code !== "market_closed") return "troubled";
  return forecast.market_open === false || forecast.reason_code ? "closed" : "fresh";
}

// `state` is the page's; the answer is about its chosen timeframe. `word`: live | closed | partial | source, or the link's.
export function conditionOf(state) {
  const of = (symbol) => symbolState(state.forecasts[`${symbol}/${state.frame}`], state.link);
  const named = (wanted) => state.symbols.filter((symbol) => of(symbol) === wanted);
  const source = state.status.source ?? {};
  const problems = Object.entries(state.status.problems ?? {}).map(([name, problem]) => [name, String(problem)]);
  const [stale, missing, troubled, closed, fresh] = ["stale", "missing", "troubled", "closed", "fresh"].map(named);
  const present = state.symbols.length - missing.length;
  const found = { source, problems, stale, missing, troubled, fresh, closed: present > 0 && closed.length === present, hasModel: state.frame in state.models, present };
  return { ...found, word: state.link === "live" ? wordOf(found) : state.link };
}

function wordOf({ source, stale, missing, troubled, closed, present, hasModel }) {
  if (source.connected === false && present) return "source";
  if (present && (stale.length || missing.length || troubled.length || !hasModel)) return "partial";
  return closed ? "closed" : "live";
}
