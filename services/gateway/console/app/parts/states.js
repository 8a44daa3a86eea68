// What a page shows when there is nothing yet, nothing at all, or an error; and values that are no longer current.
import { html, useEffect, useState } from "../html.js";
import { isPassing } from "../api.js";
import { staleSince } from "../events.js";
import { exact, span } from "./time.js";
import { now } from "../store.js";

/** Milliseconds after which a value that is not current is dimmed. */
const DIM = 10_000;

/** Lines in place of what is being loaded; nothing for the first moment, so that fast answers do not flicker. */
export function Loading({ lines = 3, label = "Loading" }) {
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 150);
    return () => clearTimeout(timer);
  }, []);
  return html`<div class="loading" role="status">
    <span class="unseen">${label}</span>
    ${late && Array.from({ length: lines }, (_, index) => html`<span key=${index} class="bar" aria-hidden="true" />`)}
  </div>`;
}

/** Nothing to show, said in a sentence, with what to do about it. */
export function Empty({ title, children }) {
  return html`<div class="empty"><p class="strong">${title}</p>${children && html`<p>${children}</p>`}</div>`;
}

/** A text of the gateway: what stands between backticks is a command. */
export const Said = ({ text }) => text.split("`").map((part, at) => (at % 2 ? html`<code key=${at}>${part}</code>` : part));

/** An error: what failed, why, what to do; `retry` asks again. */
export function Failure({ error, retry, what }) {
  return html`<div class="failure" role="alert">
    <p class="strong"><${Icon} name="fail" /> ${what ? `${what}: ` : ""}${error.title ?? "It failed"}</p>
    <p>${error.detail || error.message}</p>
    ${error.remedy && html`<p class="dim">What to do: <${Said} text=${error.remedy} /></p>`}
    ${(retry || error.requestId) &&
    html`<p class="row">
      ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}
      ${retry && isPassing(error)
        ? html`<span class="dim small">It is asked again by itself, every few seconds.</span>`
        : error.requestId && html`<span class="dim small">request ${error.requestId}</span>`}
    </p>`}
  </div>`;
}

/** Show what was asked: loading, an error without data, or `children(data)`; old data stays, with the error above. */
export function Shown({ found, what, lines, children }) {
  if (found.data === undefined) {
    return found.error
      ? html`<${Failure} error=${found.error} retry=${found.reload} what=${what} />`
      : html`<${Loading} lines=${lines} />`;
  }
  const gone = found.error && found.error.code !== "unreachable";
  return html`${gone && html`<${Failure} error=${found.error} retry=${found.reload} what=${what} />`}
    <${Dimmed} at=${found.at} isOld=${isPassing(found.error)}>${children(found.data)}</${Dimmed}>`;
}

/** Dims its content, with the time that it is of, while the browser, the gateway or what answers it is away for ten seconds. */
export function Dimmed({ at, isOld = false, children }) {
  const since = staleSince.value ?? (isOld ? at : null);
  const isStale = since !== null && now.value - since > DIM;
  return html`<div class=${`shown ${isStale ? "stale" : ""}`}>
    ${isStale && at > 0 && html`<p class="asof"><${Icon} name="clock" /> as of ${exact(Math.min(at, since))}, ${span(now.value - Math.min(at, since))} ago</p>`}
    ${children}
  </div>`;
}

const ICONS = {
  ok: "M4 12.5l5 5L20 6.500",
  warn: "M12 4 2.500 20h19zM12 10v4.500M12 17v.2",
  fail: "M12 3a9 9 0 1 0 .01 0M9 9l6 6M15 9l-6 6",
  off: "M12 3a9 9 0 1 0 .01 0M7.500 12h9",
  clock: "M12 3a9 9 0 1 0 .01 0M12 7v5l3.500 2",
  star: "M4 8l4 4 4-7 4 7 4-4-1.500 10h-13z",
  more: "M9 5l7 7-7 7",
  push: "M12 19V5M6 11l6-6 6 6",
  pull: "M12 5v14M6 13l6 6 6-6",
};

/** A small picture beside words, never instead of them. */
export const Icon = ({ name }) =>
  html`<svg class=${`icon ${name}`} viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;

/** A state as picture and words. `kind`: ok, warn, fail or off. */
export const Badge = ({ kind, title, children }) =>
  html`<span class=${`badge ${kind}`} title=${title}><${Icon} name=${kind} />${children}</span>`;
