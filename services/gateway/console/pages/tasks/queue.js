// The queue: tasks by words and state, newest first; cancelled and queued again one by one or all that match.
import { html, useState } from "../../app/html.js";
import { get, post } from "../../app/api.js";
import { href, setQuery } from "../../app/router.js";
import { may } from "../../app/session.js";
import { useResource } from "../../app/store.js";
import { ChoiceBar, Filters, More, Pick, Search, useChoice, useKept } from "../../app/parts/filters.js";
import { ReviewButton } from "../../app/parts/review.js";
import { Empty, Shown } from "../../app/parts/states.js";
import { orderOf, Table } from "../../app/parts/table.js";
import { count, number } from "../../app/parts/text.js";
import { Time } from "../../app/parts/time.js";
import { outcome, TaskJobs, WORDS } from "./jobs.js";
import { AT, isStatus, named, Status, TaskLink, useCalm } from "./parts.js";

const STATES = ["queued", "leased", "running", "failed", "completed", "dead"];
const FIELDS = { q: "q", status: "status", agent: "agent_slug", context: "context_id", worker: "worker_id" };
/** Tasks that are shown at first and with each "more", and at most in one request. */
const [SHOWN, MOST] = [50, 1_000];
/** Milliseconds that a change of many tasks may take. */
const LONG = 60_000;
const VERBS = {
  cancel: ["cancel", (many) => `Cancel ${count(many, "task")}`],
  requeue: ["queue again", (many) => `Queue ${count(many, "task")} again`],
};

export function Queue({ query }) {
  const filter = {};
  for (const [name, field] of Object.entries(FIELDS)) if (query.get(name)) filter[field] = query.get(name);
  const asked = JSON.stringify(filter);
  const canChange = may("tasks");
  const choice = useChoice(asked);
  const columns = columnsOf(choice, canChange);
  const { column, sign } = orderOf(columns, query.get("sort"));
  const order = column ? { order: column.by, ascending: sign > 0 } : {};
  const [wanted, setWanted] = useState(SHOWN);
  const resource = useResource((signal) => get(`${AT}/llm-tasks`, { ...filter, ...order, limit: Math.min(wanted, MOST), count: true }, { signal }), [asked, wanted, column?.by, sign]);
  const stats = useResource((signal) => get(`${AT}/stats`, {}, { signal }), []);
  useCalm(() => (resource.reload(), stats.reload()), isStatus);
  const found = useKept(resource);
  const isNarrowed = Object.keys(filter).length > 0;
  return html`<${TaskJobs} /><section class="panel" aria-label="Queue">
    <header>
      <div class="row states" role="group" aria-label="State">
        ${["", ...STATES].map((state) => html`<button key=${state} type="button" class="small plain" aria-pressed=${String((filter.status ?? "") === state)}
          onClick=${() => setQuery({ status: state })}>${state || "all"}${state && stats.data && html` <span class="number">${number(stats.data.tasks[state] ?? 0)}</span>`}</button>`)}
      </div>
      ${canChange && html`<a class="button" href=${href("tasks", ["new"])}>New task</a>`}
    </header>
    <${Filters}>
      <${Search} value=${query.get("q") ?? ""} label="Search" placeholder="Words of prompt, error, names, or an id" />
      <${Search} name="agent" value=${query.get("agent") ?? ""} label="Agent" placeholder="Any" options=${[]} />
      <${Search} name="context" value=${query.get("context") ?? ""} label="Context" placeholder="Any" options=${[]} />
      <${Search} name="worker" value=${query.get("worker") ?? ""} label="Worker" placeholder="Any" options=${[]} />
    </${Filters}>
    <${Shown} found=${found} what="The tasks" lines=${8}>
      ${(data) => html`<${ChoiceBar} choice=${choice} shown=${canChange ? data.tasks.map((one) => one.id) : []} total=${data.total ?? 0}
          canAll=${canChange && isNarrowed} matches=${isNarrowed ? count(data.total, "task matches", "tasks match") : count(data.total, "task")}>
          ${Object.keys(VERBS).map((change) => html`<${Change} key=${change} change=${change} wanted=${choice.all ? { filter } : { ids: choice.ids }} done=${choice.clear} />`)}
        </${ChoiceBar}>
        ${data.tasks.length === 0
          ? html`<${Empty} title=${isNarrowed ? "No task matches" : "No task yet"}>${isNarrowed ? html`<a href=${href("tasks")}>Show all tasks</a>` : canChange && html`<a href=${href("tasks", ["new"])}>Submit the first one</a>`}</${Empty}>`
          : html`<${Table} caption="Tasks" columns=${columns} rows=${data.tasks} keyOf=${(one) => one.id} />`}
        ${data.more && wanted < MOST && html`<${More} found=${resource} onMore=${() => setWanted(wanted + SHOWN)} />`}`}
    </${Shown}>
  </section>`;
}

/** The columns; each that sorts does so in the coordinator, as the page has only the first of all tasks. */
const columnsOf = (choice, canChange) => [
  ...(canChange ? [{ key: "choose", label: "", kind: "choose", cell: (one) => html`<input type="checkbox" aria-label=${`Select ${named(one)}`} checked=${choice.has(one.id)} onChange=${() => choice.toggle(one.id)} />` }] : []),
  { key: "task", label: "Task", kind: "main", cell: (one) => html`<${TaskLink} id=${one.id}>${named(one)}</${TaskLink}>
      ${one.reason && html`<p class="dim small reason">${one.reason.slice(0, 200)}</p>`}` },
  { key: "status", label: "State", by: "status", cell: (one) => html`<${Status} status=${one.status} />` },
  { key: "agent", label: "Agent", by: "agent", cell: (one) => one.agent_slug },
  { key: "worker", label: "Worker", wide: true, by: "worker", cell: (one) => one.worker_id ?? html`<span class="dim">none</span>` },
  { key: "tries", label: "Attempt", kind: "number", wide: true, by: "attempts", cell: (one) => `${one.attempts}/${one.max_attempts}` },
  { key: "at", label: "Changed", kind: "number", by: "updated", cell: (one) => html`<${Time} at=${one.updated_at} />` },
];

/** The button that changes many tasks: those of a list in one request, all of a filter as a job of the coordinator. */
export function Change({ change, wanted, done }) {
  const [label, verb] = VERBS[change];
  const [going, past] = WORDS[change];
  const sum = (found) => Object.values(found.counts).reduce((all, one) => all + one, 0);
  const send = (fields, options) => post(`${AT}/task-changes`, { change, ...wanted, ...fields }, { deadline: LONG, ...options });
  const skipped = (found) => (wanted.ids ? wanted.ids.length - sum(found) : 0);
  return html`<${ReviewButton} label=${label} small isDanger=${change === "cancel"} back=${change === "cancel" ? "Change nothing" : undefined}
    load=${(signal) => send({}, { signal })}
    body=${(found) => html`<p><strong>${count(sum(found), "task")}</strong> will be ${past}${sum(found) > 0 && `: ${Object.entries(found.counts).map(([state, many]) => `${number(many)} ${state}`).join(", ")}`}.
        ${change === "cancel" ? " A worker that runs one is stopped." : " Each begins anew, with all its attempts."}</p>
      ${skipped(found) > 0 && html`<p class="dim">${count(skipped(found), "task")} of your selection cannot be ${past} in the state that it is in.</p>`}
      <ul class="titles" tabindex="0">${found.tasks.map((one) => html`<li key=${one.id}><span class="dim small">${one.status}</span> ${named(one)}</li>`)}</ul>
      ${sum(found) > found.tasks.length && html`<p class="dim">and ${number(sum(found) - found.tasks.length)} more</p>`}`}
    verb=${(found) => (sum(found) ? verb(sum(found)) : null)}
    act=${(found) => send({ apply: true, ...(wanted.filter && { through: found.through, as_job: true }) })}
    done=${(result) => {
      done?.();
      return result.job ? `${going} ${count(result.job.total, "task")}` : outcome({ ...result, change });
    }}
  />`;
}
