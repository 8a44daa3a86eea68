// What the pages of tasks share: states in words, links, live lists that stay calm, and downloads.
import { html, useEffect } from "../../app/html.js";
import { on } from "../../app/events.js";
import { href } from "../../app/router.js";
import { get } from "../../app/api.js";
import { Badge } from "../../app/parts/states.js";

export const AT = "/api/runtime";
const KINDS = {
  queued: "off", leased: "clock", running: "clock", completed: "ok", failed: "warn", dead: "fail", expired: "warn", returned: "off",
  online: "ok", syncing: "warn", offline: "off", error: "fail", unknown: "off",
};
/** What people call a worker that drains, and what states mean. */
const WORDS = { syncing: "draining" };
const MEANS = { failed: "It waits for its next attempt", dead: "It ended without a result" };

export const Status = ({ status, title }) =>
  html`<${Badge} kind=${KINDS[status] ?? "off"} title=${title || MEANS[status]}>${WORDS[status] ?? status}</${Badge}>`;

export const TaskLink = ({ id, children }) => html`<a class=${children ? "" : "mono"} href=${href("tasks", ["task", id])} title=${id}>${children ?? short(id)}</a>`;
export const short = (id) => `…${id.slice(-8)}`;

/** The first line of a prompt, as the name of its task. */
export const named = (task) => task.prompt.trim().split("\n")[0].slice(0, 120) || "(no prompt)";

/** Milliseconds between two requests of a list, however much happens. */
const CALM = 1_000;

/**
 * Have `reload` called after events for which `when(data)` holds: at once, then once a second at most; in a tab that
 * nobody sees, once it is shown again.
 */
export function useCalm(reload, when, every = CALM) {
  useEffect(() => {
    let last = 0;
    let timer = 0;
    let isDue = false;
    const soon = () => {
      isDue = document.hidden;
      if (isDue) return;
      timer ||= setTimeout(() => {
        timer = 0;
        last = Date.now();
        reload();
      }, Math.max(100, last + every - Date.now()));
    };
    const shown = () => isDue && soon();
    const stops = on(["task"], (event) => when(event) && soon());
    document.addEventListener("visibilitychange", shown);
    return () => {
      stops();
      document.removeEventListener("visibilitychange", shown);
      clearTimeout(timer);
    };
  }, []);
}

export const isStatus = (event) => event?.kind === "status";

/** Have the browser save a text as a file. */
export function save(name, text, type = "text/plain;charset=utf-8") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Return the whole content of an artifact, part by part. */
export async function contentOf(id, signal) {
  let content = "";
  let offset = 0;
  do {
    const part = await get(`${AT}/artifacts/${id}`, { offset }, { signal });
    content += part.content ?? "";
    offset = part.next_offset;
  } while (offset !== null && offset !== undefined);
  return content;
}
