// Server-sent events over fetch, so that the token travels in a header. Reconnects by itself, with Last-Event-ID.

const SILENCE_MS = 40_000; // heartbeats come every 15 s
const LONGEST_WAIT_MS = 15_000;

// `on` has: event(kind, data), state("connecting" | "live" | "lost", detail), refused(problem).
export function openStream(token, on) {
  const stop = new AbortController();
  run(token, on, stop.signal);
  return () => stop.abort();
}

async function run(token, on, stopped) {
  let lastId = "";
  let failures = 0;
  while (!stopped.aborted) {
    if (!failures) on.state("connecting", ""); // afterwards it is lost until it is live again
    let wait = Math.min(LONGEST_WAIT_MS, 500 * 2 ** failures);
    try {
      const answer = await connect(token, lastId, stopped);
      if (answer.status === 401 || answer.status === 403) return on.refused(await answer.json());
      if (!answer.ok) {
        wait = 1000 * Number(answer.headers.get("Retry-After") || 5);
        throw new Error((await answer.json()).detail);
      }
      for await (const message of messages(answer.body)) {
        failures = 0;
        lastId = message.id || lastId;
        on.state("live", "");
        on.event(message.event, JSON.parse(message.data));
      }
      throw new Error("The server closed the stream.");
    } catch (error) {
      if (stopped.aborted) return;
      failures += 1;
      on.state("lost", error.message);
      await new Promise((go) => setTimeout(go, wait));
    }
  }
}

function connect(token, lastId, stopped) {
  const headers = { Authorization: `Bearer ${token}`, Accept: "text/event-stream" };
  if (lastId) headers["Last-Event-ID"] = lastId;
  return fetch("/api/v1/stream", { headers, cache: "no-store", signal: stopped });
}

async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await within(SILENCE_MS, reader.read());
      if (done) return;
      buffer += value;
      const parts = buffer.split("\n\n");
      buffer = parts.pop();
      for (const part of parts) {
        const message = parse(part);
        if (message.data) yield message;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(text) {
  const message = { event: "message", id: "", data: "" };
  for (const line of text.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) message[line.slice(0, at)] = line.slice(at + 2);
  }
  return message;
}

function within(milliseconds, promise) {
  let timer;
  const silence = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error("The server has gone silent.")), milliseconds);
  });
  return Promise.race([promise, silence]).finally(() => clearTimeout(timer));
}
