// Live state: what was asked, of when it is, and asked again when an event says that it changed.
import { effect, signal, useEffect, useRef, useState } from "./html.js";
import { get, isPassing } from "./api.js";
import { on } from "./events.js";

/** The time, each second while the page is visible: for "12 s ago" and for leases that count down. */
export const now = signal(Date.now());
setInterval(() => document.visibilityState === "visible" && (now.value = Date.now()), 1_000);
document.addEventListener("visibilitychange", () => (now.value = Date.now()));

/** Milliseconds for which events are collected before one request answers them all. */
const SOON = 120;

/** Milliseconds after which a request is tried again whose answerer is away, at first and at most: its return is no event. */
const [AGAIN, LONGEST] = [1_000, 5_000];

/** What is asked at present. */
const asked = new Set();
document.addEventListener("visibilitychange", () => asked.forEach((one) => !document.hidden && one.isDue && one.soon()));

/**
 * A value that is asked with `load(signal)` and kept current: it is asked again after each event of `on` for which
 * `when(data, name)` holds, whenever the connection is back, and while the coordinator or machine that answers is away.
 */
class Resource {
  constructor(load, { events = [], when = () => true } = {}) {
    this.load = load;
    this.state = signal({ data: undefined, error: null, loading: true, at: 0 });
    this.running = null;
    this.again = false;
    this.timer = 0;
    this.pause = AGAIN;
    this.stops = on(["fresh", ...events], (data, name) => (name === "fresh" || when(data, name)) && this.soon());
    this.reload = this.reload.bind(this);
    asked.add(this);
    this.reload();
  }

  /** Ask again, once for all events of a moment; a hidden tab waits until it is shown. */
  soon(pause = SOON) {
    if (document.hidden) this.isDue = true;
    else this.timer ||= setTimeout(this.reload, pause);
  }

  async reload() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.isDue = false;
    if (this.running) return void (this.again = true);
    const running = (this.running = new AbortController());
    this.state.value = { ...this.state.peek(), loading: true };
    try {
      const data = await this.load(running.signal);
      if (!running.signal.aborted) this.state.value = { data, error: null, loading: false, at: Date.now() };
    } catch (error) {
      if (!running.signal.aborted) this.state.value = { ...this.state.peek(), error, loading: false };
    }
    if (running.signal.aborted) return;
    this.running = null;
    if (this.again) {
      this.again = false;
      this.soon();
    } else if (isPassing(this.state.peek().error)) {
      this.soon(this.pause);
      this.pause = Math.min(2 * this.pause, LONGEST);
    } else this.pause = AGAIN;
  }

  close() {
    asked.delete(this);
    this.stops();
    clearTimeout(this.timer);
    this.running?.abort();
  }
}

const NOTHING = { data: undefined, error: null, loading: true, at: 0 };

/**
 * Return `{data, error, loading, at, reload}` of a request. It is asked anew when one of `deps` changes. While it fails
 * the last data stays, with the error beside it.
 *
 *     const found = useResource((signal) => get("/api/nodes", {}, { signal }), [], { events: ["node"] });
 */
export function useResource(load, deps, options) {
  const [state, setState] = useState(NOTHING);
  const held = useRef(null);
  useEffect(() => {
    setState(NOTHING);
    const resource = new Resource(load, options);
    held.current = resource;
    const stops = effect(() => setState(resource.state.value));
    return () => {
      stops();
      resource.close();
    };
  }, deps);
  return { ...state, reload: () => held.current?.reload() };
}

/** The projects that the caller sees, `{data: {projects}, …}`; null before the login. */
export const projects = signal(null);
let known = null;
let copies = () => {};

/** Begin to keep what all pages share. */
export function open() {
  if (known) return;
  known = new Resource((aborts) => get("/api/membridge/projects", {}, { signal: aborts }), {
    events: ["node", "memory"],
    when: (data, name) => name === "node" || /snapshot|leadership/.test(data?.type ?? ""),
  });
  copies = effect(() => (projects.value = known.state.value));
}

export function close() {
  copies();
  known?.close();
  known = null;
  projects.value = null;
}
