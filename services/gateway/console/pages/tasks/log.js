// The log of a task, as it is written. Only the lines in sight are drawn, so a hundred thousand stay usable.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../../app/html.js";
import { get, isPassing } from "../../app/api.js";
import { on } from "../../app/events.js";
import { setQuery } from "../../app/router.js";
import { Failure, Loading } from "../../app/parts/states.js";
import { count, number } from "../../app/parts/text.js";
import { AT, save } from "./parts.js";

/** Pixels of a line; lines beyond the window that are drawn too; milliseconds between two looks while it is written. */
const [HEIGHT, BEYOND, SOON] = [20, 20, 150];
/** Milliseconds after which the log is asked for again while no coordinator answers. */
const AGAIN = 3_000;
const KINDS = { status: "State", progress: "Steps", stderr: "Output" };
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
const FAILED = ["failed", "dead"];

/** Return an event as lines; each knows what to copy, to search and to mark. */
function linesOf(event) {
  const said = event.kind === "status" ? [event.status, event.text].filter(Boolean).join(": ") : event.text;
  const isFailure = FAILED.includes(event.status);
  return said.split("\n").map((text) => ({ at: event.at, kind: event.kind, text, isFailure }));
}

/** Read the log from where it was left, and again whenever something happens to the task. */
function useLog(id) {
  const [log, setLog] = useState({ lines: [], isRead: false, error: null });
  const reload = useRef(() => {});
  useEffect(() => {
    const aborts = new AbortController();
    const place = { start: 1, life: "", running: false, again: false, timer: 0, lines: [] };
    const read = async () => {
      place.timer = 0;
      if (place.running) return void (place.again = true);
      place.running = true;
      try {
        let next = place.start;
        while (next) {
          const page = await get(`${AT}/llm-tasks/${id}/events`, { start: next }, { signal: aborts.signal });
          if (place.life && page.life !== place.life) [place.lines, next, place.life] = [[], 1, page.life];
          else {
            place.life = page.life;
            for (const line of page.events.flatMap(linesOf)) place.lines.push({ ...line, index: place.lines.length });
            next = page.next_start;
            place.start = page.resume;
          }
        }
        setLog({ lines: place.lines, isRead: true, error: null });
      } catch (error) {
        if (aborts.signal.aborted) return;
        setLog((before) => ({ ...before, isRead: true, error }));
        if (isPassing(error)) soon(AGAIN);
      }
      place.running = false;
      if (place.again) {
        place.again = false;
        soon();
      }
    };
    const soon = (pause = SOON) => (place.timer ||= setTimeout(read, pause));
    reload.current = read;
    const stops = on(["task", "fresh"], (event, name) => (name === "fresh" || event?.task_id === id) && soon());
    read();
    return () => {
      aborts.abort();
      stops();
      clearTimeout(place.timer);
    };
  }, [id]);
  return { ...log, reload: () => reload.current() };
}

export function Log({ id, query }) {
  const log = useLog(id);
  const hidden = query.getAll("without");
  const text = (query.get("find") ?? "").toLowerCase();
  const onlyFailures = query.get("failures") === "1";
  const [follows, setFollows] = useState(true);
  const [typed, setTyped] = useState(query.get("find") ?? "");
  const frame = useRef(null);
  const lines = log.lines.filter((line) => !hidden.includes(line.kind) && (!onlyFailures || line.isFailure) && (!text || line.text.toLowerCase().includes(text)));
  const toggle = (kind) => setQuery({ without: hidden.includes(kind) ? hidden.filter((one) => one !== kind) : [...hidden, kind] }, { replace: true });
  const find = (event) => (setTyped(event.target.value), setQuery({ find: event.target.value }, { replace: true }));
  const download = () => save(`${id}.log`, lines.map((line) => `${line.at} ${line.kind} ${line.text}`).join("\n"));
  return html`<section class="panel log" ref=${frame} aria-label="Log">
    <header>
      <h2>Log</h2>
      <div class="row">
        <input type="search" aria-label="Lines with" placeholder="Lines with…" value=${typed} onInput=${find} />
        ${Object.entries(KINDS).map(([kind, label]) => html`<label key=${kind} class="row tick"><input type="checkbox" checked=${!hidden.includes(kind)} onChange=${() => toggle(kind)} />${label}</label>`)}
        <label class="row tick"><input type="checkbox" checked=${onlyFailures} onChange=${() => setQuery({ failures: onlyFailures ? "" : "1" }, { replace: true })} />Only failures</label>
        <label class="row tick"><input type="checkbox" checked=${follows} onChange=${() => setFollows(!follows)} />Follow</label>
        <button type="button" class="small" onClick=${() => frame.current.requestFullscreen?.()}>Full screen</button>
        <button type="button" class="small" onClick=${download} disabled=${!lines.length}>Download</button>
      </div>
    </header>
    ${log.error && html`<${Failure} error=${log.error} retry=${log.reload} what="The log" />`}
    ${!log.isRead
      ? html`<${Loading} lines=${5} />`
      : html`<${Lines} lines=${lines} follows=${follows} onScroll=${setFollows} />
        <p class="dim small foot" role="status">${lines.length === log.lines.length ? count(lines.length, "line") : `${number(lines.length)} of ${count(log.lines.length, "line")}`}</p>`}
  </section>`;
}

/** The lines in sight of a list of any length. */
function Lines({ lines, follows, onScroll }) {
  const box = useRef(null);
  const [sight, setSight] = useState({ top: 0, height: 400 });
  const isOurs = useRef(false);
  useLayoutEffect(() => {
    const sizes = new ResizeObserver(() => box.current && setSight({ top: box.current.scrollTop, height: box.current.clientHeight }));
    sizes.observe(box.current);
    return () => sizes.disconnect();
  }, []);
  useLayoutEffect(() => {
    if (!follows) return;
    isOurs.current = true;
    box.current.scrollTop = box.current.scrollHeight;
  }, [follows, lines.length]);
  const scrolled = () => {
    const { scrollTop, clientHeight, scrollHeight } = box.current;
    setSight({ top: scrollTop, height: clientHeight });
    const isAtEnd = scrollTop + clientHeight >= scrollHeight - HEIGHT;
    if (isOurs.current) isOurs.current = false;
    else if (isAtEnd !== follows) onScroll(isAtEnd);
  };
  const first = Math.max(0, Math.floor(sight.top / HEIGHT) - BEYOND);
  const last = Math.min(lines.length, Math.ceil((sight.top + sight.height) / HEIGHT) + BEYOND);
  const widest = String(lines.at(-1)?.index ?? 0).length + 1;
  return html`<div class="lines mono" ref=${box} tabindex="0" role="log" aria-live="off" aria-label="Lines of the log" onScroll=${scrolled}>
    <div class="all" style=${{ height: `${lines.length * HEIGHT}px` }}>
      <div class="seen" style=${{ transform: `translateY(${first * HEIGHT}px)` }}>
        ${lines.slice(first, last).map((line) => html`<div key=${line.index} class=${`line ${line.kind} ${line.isFailure ? "failure-line" : ""}`}>
          <span class="no" style=${{ minWidth: `${widest}ch` }}>${line.index + 1}</span><time title=${line.at}>${CLOCK.format(new Date(line.at))}</time><span class="said">${line.text}</span>
        </div>`)}
      </div>
    </div>
    ${lines.length === 0 && html`<p class="dim none">No line yet.</p>`}
  </div>`;
}
