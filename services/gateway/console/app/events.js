// What happens, as it happens: one event stream per browser, shared by its tabs.
//
// A browser opens six connections to a server at most, so eight tabs cannot have a stream each. The tab that holds a lock
// reads `GET /api/events` and passes on what it reads over a BroadcastChannel; when it closes, another tab gets the lock
// and reads on after the last id. It is read with fetch, not with EventSource: that shows neither the status of a refusal
// nor the signs of life, and without those a tab that wakes from sleep cannot tell a dead connection from a quiet one.
import { computed, signal } from "./html.js";
import { session } from "./session.js";

const URL_OF_EVENTS = "/api/events";
const NAME = "membridge-events";
/** Milliseconds: first and longest pause between two tries; silence after which a connection counts as dead. */
const [FIRST, LONGEST, SILENCE] = [250, 1_000, 36_000];
/** Milliseconds: between two looks at the clock; a gap that only sleep explains; for an answer of the reading tab. */
const [LOOK, SLEPT, ANSWERS] = [500, 5_000, 700];
const HEALTH = "/api/runtime/health";

/** `{state, since}`: between browser and gateway, `connecting`, `live` or `lost`. */
export const gateway = signal({ state: "connecting", since: Date.now() });
/** `{state, since, detail}`: between gateway and NATS, `ok` or `lost`. */
export const nats = signal({ state: "ok", since: Date.now(), detail: "" });
/** Whether what is shown is current, and since when it is not. */
export const isLive = computed(() => gateway.value.state === "live" && nats.value.state === "ok");
export const staleSince = computed(() => {
  if (isLive.value) return null;
  const broken = [gateway.value, nats.value].filter((one) => one.state !== "live" && one.state !== "ok");
  return Math.min(...broken.map((one) => one.since));
});

const listeners = new Map();
const channel = typeof BroadcastChannel === "function" ? new BroadcastChannel(NAME) : null;

let lastId = "";
let isReading = false;
let reopen = () => {};
let waits = 0;
let giveUp = null;

/**
 * Have `act(data, name)` called for events: `task`, `memory`, `job` and `node` as the gateway sends them; `fresh` when
 * everything should be asked again, because the connection is back or the gateway no longer has what happened meanwhile.
 * Returns how to stop.
 */
export function on(names, act) {
  for (const name of names) {
    if (!listeners.has(name)) listeners.set(name, new Set());
    listeners.get(name).add(act);
  }
  return () => names.forEach((name) => listeners.get(name).delete(act));
}

function emit(name, data) {
  for (const act of [...(listeners.get(name) ?? [])]) act(data, name);
}

/** Begin, once somebody is logged in. */
export function start() {
  if (giveUp) return;
  giveUp = new AbortController();
  stand(giveUp.signal, false);
  tell({ kind: "ping" });
}

/** End: nobody is logged in any more. */
export function stop() {
  giveUp?.abort();
  giveUp = null;
  lastId = "";
  set(gateway, { state: "connecting" });
}

function tell(message) {
  channel?.postMessage(message);
}

function set(where, said) {
  if (where.peek().state !== said.state) where.value = { ...said, since: said.since ?? Date.now() };
}

/** Wait for the lock and read while this tab holds it; `steal` takes it from a tab that does not answer. */
async function stand(signal, steal) {
  if (!navigator.locks || !channel) return read(signal);
  const stolen = new AbortController();
  try {
    // A lock is stolen at once or not at all, so such a request takes no signal.
    await navigator.locks.request(NAME, steal ? { steal } : { signal }, () => read(AbortSignal.any([signal, stolen.signal])));
  } catch {
    // Another tab took over: stop reading, and get in line behind it.
    stolen.abort();
    if (!signal.aborted) stand(signal, false);
  }
}

async function read(signal) {
  isReading = true;
  try {
    await readOn(signal);
  } finally {
    isReading = false;
  }
}

async function readOn(signal) {
  let pause = FIRST;
  const isBack = () => (pause = FIRST);
  while (!signal.aborted) {
    const ends = new AbortController();
    let woken = () => {};
    const wake = new Promise((resolve) => (woken = resolve));
    reopen = () => (ends.abort(), woken());
    try {
      await follow(AbortSignal.any([signal, ends.signal]), ends, isBack);
    } catch (error) {
      if (error.status === 401) return void (session.value = null);
    }
    if (signal.aborted) return;
    if (!ends.signal.aborted || ends.silent) lost();
    if (!ends.signal.aborted) await Promise.race([wake, new Promise((resolve) => setTimeout(resolve, pause))]);
    pause = ends.signal.aborted ? FIRST : Math.min(2 * pause, LONGEST);
  }
}

function lost() {
  set(gateway, { state: "lost" });
  tell({ kind: "state", gateway: gateway.peek(), nats: nats.peek() });
}

async function follow(signal, ends, isBack) {
  let heard = setTimeout(silent, SILENCE);
  function silent() {
    ends.silent = true;
    ends.abort();
  }
  try {
    const url = lastId ? `${URL_OF_EVENTS}?last_event_id=${encodeURIComponent(lastId)}` : URL_OF_EVENTS;
    const response = await fetch(url, { headers: { Accept: "text/event-stream" }, cache: "no-store", signal });
    if (!response.ok) {
      if (response.status === 400) lastId = "";
      throw Object.assign(new Error("refused"), { status: response.status });
    }
    isBack();
    set(gateway, { state: "live" });
    tell({ kind: "state", gateway: gateway.peek(), nats: nats.peek() });
    pass("fresh", null);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(heard);
      heard = setTimeout(silent, SILENCE);
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      frames.forEach(take);
    }
  } finally {
    clearTimeout(heard);
  }
}

/** Take one frame of the stream. */
function take(frame) {
  let name = "message";
  let data = null;
  for (const line of frame.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("id: ")) lastId = line.slice(4);
    else if (line.startsWith("data:")) data = `${data === null ? "" : `${data}\n`}${line.slice(line[5] === " " ? 6 : 5)}`;
  }
  if (data === null) return;
  let said = null;
  try {
    said = data ? JSON.parse(data) : null;
  } catch {
    return;
  }
  if (name === "trouble") return trouble(said);
  if (nats.peek().state === "lost" && name !== "reset") recovered();
  pass(name === "reset" ? "fresh" : name, said);
}

/** Tell this tab and the others. */
function pass(name, data) {
  tell({ kind: "event", name, data, lastId });
  emit(name, data);
}

function trouble(said) {
  if (nats.peek().state === "lost") return;
  set(nats, { state: "lost", detail: said?.detail ?? "" });
  tell({ kind: "state", gateway: gateway.peek(), nats: nats.peek() });
  probe();
}

/** While NATS is away no event says that it is back, so the gateway is asked. */
async function probe() {
  while (isReading && nats.peek().state === "lost" && giveUp) {
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    try {
      const health = await (await fetch(HEALTH, { cache: "no-store" })).json();
      if (health.connections?.nats === "connected" && nats.peek().state === "lost") recovered();
    } catch {
      // The gateway is away too, which the stream notices.
    }
  }
}

function recovered() {
  set(nats, { state: "ok", detail: "" });
  tell({ kind: "state", gateway: gateway.peek(), nats: nats.peek() });
  pass("fresh", null);
}

channel?.addEventListener("message", ({ data: said }) => {
  if (said.kind === "session") emit("session", null);
  if (!giveUp) return;
  if (["ping", "wake"].includes(said.kind) && isReading) tell({ kind: "state", gateway: gateway.peek(), nats: nats.peek() });
  if (said.kind === "wake" && isReading) reopen();
  if (isReading) return;
  if (said.kind === "state") {
    clearTimeout(waits);
    set(gateway, said.gateway);
    set(nats, said.nats);
  }
  if (said.kind === "event") {
    lastId = said.lastId;
    emit(said.name, said.data);
  }
});

/** Tell the other tabs that somebody logged in or out. */
export const sessionChanged = () => tell({ kind: "session" });

/** Be live again at once: after sleep, when the network is back, when the page is shown again. */
function wake(slept) {
  if (!giveUp) return;
  if (isReading) {
    if (slept || gateway.peek().state !== "live") reopen();
    return;
  }
  tell({ kind: slept || gateway.peek().state !== "live" ? "wake" : "ping" });
  clearTimeout(waits);
  waits = setTimeout(() => giveUp && !isReading && stand(giveUp.signal, true), ANSWERS);
}

let lookedAt = Date.now();
setInterval(() => {
  const gap = Date.now() - lookedAt;
  lookedAt = Date.now();
  if (gap > SLEPT && document.visibilityState === "visible") wake(true);
}, LOOK);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible") return;
  const slept = Date.now() - lookedAt > SLEPT;
  lookedAt = Date.now();
  wake(slept);
});
document.addEventListener("resume", () => wake(true));
addEventListener("online", () => wake(true));
addEventListener("pageshow", (event) => event.persisted && wake(true));
addEventListener("offline", () => isReading && reopen());
