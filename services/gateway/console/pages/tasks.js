// Tasks: the queue, one task with its live log, workers, runs, artifacts and the audit.
import { html } from "../app/html.js";
import { href } from "../app/router.js";
import { may } from "../app/session.js";
import { Empty } from "../app/parts/states.js";
import { Queue } from "./tasks/queue.js";
import { Artifacts, Audit, Runs } from "./tasks/records.js";
import { Submit } from "./tasks/submit.js";
import { Task } from "./tasks/task.js";
import { Workers } from "./tasks/workers.js";

export const title = "Tasks";

const TABS = { "": ["Queue", Queue], workers: ["Workers", Workers], runs: ["Runs", Runs], artifacts: ["Artifacts", Artifacts], audit: ["Audit", Audit] };

export default function Page({ params }) {
  const [tab = "", id] = params.path;
  if (tab === "task" && id) return html`<${Task} key=${id} id=${id} query=${params.query} />`;
  if (tab === "new" && may("tasks")) return html`<${Submit} query=${params.query} />`;
  const [, Part] = TABS[tab] ?? [];
  return html`<h1>Tasks</h1>
    <nav class="tabs" aria-label="Parts of this page">${Object.entries(TABS).map(
      ([name, [label]]) => html`<a key=${name} href=${href("tasks", [name])} aria-current=${name === tab ? "page" : undefined}>${label}</a>`,
    )}</nav>
    ${Part ? html`<${Part} query=${params.query} />` : html`<${Empty} title=${tab === "new" ? "Your key may not submit tasks" : "There is no such part"} />`}`;
}
