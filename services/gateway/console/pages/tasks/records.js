// What is kept of the past: runs, artifacts, and the audit of the coordinator.
import { html, useState } from "../../app/html.js";
import { get } from "../../app/api.js";
import { useResource } from "../../app/store.js";
import { Filters, More, Pick, Search, useKept } from "../../app/parts/filters.js";
import { Empty, Shown } from "../../app/parts/states.js";
import { Table } from "../../app/parts/table.js";
import { asker, number } from "../../app/parts/text.js";
import { Time } from "../../app/parts/time.js";
import { toast } from "../../app/parts/toast.js";
import { AT, contentOf, isStatus, save, Status, TaskLink, useCalm } from "./parts.js";

/** Records that are shown at first and with each "more", and at most. */
const [SHOWN, MOST] = [50, 1_000];
const RUNS = ["running", "completed", "failed", "expired", "returned"];

/** A list of records of one route: `rows` is its field of the answer, `filters` are drawn above it. */
function Records({ path, query, rows, columns, filters, empty }) {
  const [wanted, setWanted] = useState(SHOWN);
  const asked = { ...query, limit: Math.min(wanted + 1, MOST) };
  const resource = useResource((signal) => get(`${AT}/${path}`, asked, { signal }), [JSON.stringify(asked)]);
  useCalm(resource.reload, isStatus);
  const found = useKept(resource);
  return html`<section class="panel" aria-label=${empty[0]}>
    <${Filters}>${filters}</${Filters}>
    <${Shown} found=${found} what=${empty[0]} lines=${6}>
      ${(data) => html`${data[rows].length === 0
          ? html`<${Empty} title=${empty[1]} />`
          : html`<${Table} caption=${empty[0]} columns=${columns} rows=${data[rows].slice(0, wanted)} keyOf=${(one) => one.id} />`}
        ${data[rows].length > wanted && wanted < MOST && html`<${More} found=${resource} onMore=${() => setWanted(wanted + SHOWN)} />`}`}
    </${Shown}>
  </section>`;
}

const byTask = (query, name = "task") => html`<${Search} name=${name} value=${query.get(name) ?? ""} label="Task" placeholder="Id of a task" />`;

export function Runs({ query }) {
  const columns = [
    { key: "task", label: "Task", kind: "main", cell: (one) => html`<${TaskLink} id=${one.task_id} />` },
    { key: "status", label: "State", cell: (one) => html`<${Status} status=${one.status} />${one.error_message && html`<p class="dim small reason">${one.error_message.slice(0, 200)}</p>`}` },
    { key: "worker", label: "Worker", cell: (one) => one.worker_id },
    { key: "tokens", label: "Tokens", kind: "number", wide: true, cell: (one) => (one.tokens_used === null ? "" : number(one.tokens_used)) },
    { key: "took", label: "Took", kind: "number", cell: (one) => (one.duration_ms === null ? "" : `${number(Math.round(one.duration_ms / 100) / 10)} s`) },
    { key: "at", label: "Began", kind: "number", cell: (one) => html`<${Time} at=${one.started_at} />` },
  ];
  const said = { status: query.get("status"), task_id: query.get("task"), worker_id: query.get("worker") };
  return html`<${Records} path="runs" rows="runs" query=${said} columns=${columns} empty=${["Runs", "No run matches"]}
    filters=${[byTask(query), html`<${Search} name="worker" value=${query.get("worker") ?? ""} label="Worker" placeholder="Any" options=${[]} />`,
      html`<${Pick} name="status" value=${query.get("status") ?? ""} label="State" options=${[["", "Any state"], ...RUNS.map((one) => [one, one])]} />`]} />`;
}

async function download(one) {
  try {
    save(`${one.id}.txt`, await contentOf(one.id));
  } catch (error) {
    toast(`Not downloaded: ${error.detail || error.message}`, "fail");
  }
}

export function Artifacts({ query }) {
  const columns = [
    { key: "artifact", label: "Artifact", kind: "main", cell: (one) => html`<span class="mono">${one.id}</span>` },
    { key: "task", label: "Task", cell: (one) => html`<${TaskLink} id=${one.task_id} />` },
    { key: "tags", label: "Tags", wide: true, cell: (one) => one.tags.join(", ") },
    { key: "at", label: "Made", kind: "number", cell: (one) => html`<${Time} at=${one.created_at} />` },
    { key: "actions", label: "", kind: "actions", cell: (one) => html`<button type="button" class="small" onClick=${() => download(one)}>Download</button>` },
  ];
  return html`<${Records} path="artifacts" rows="artifacts" query=${{ task_id: query.get("task") }} columns=${columns} filters=${byTask(query)}
    empty=${["Artifacts", "No artifact matches"]} />`;
}

export function Audit({ query }) {
  const columns = [
    { key: "action", label: "What", kind: "main", cell: (one) => one.action.replaceAll("_", " ") },
    { key: "entity", label: "Of", cell: (one) => html`${one.entity_type} ${one.entity_type === "task" ? html`<${TaskLink} id=${one.entity_id} />` : one.entity_id}` },
    { key: "actor", label: "By", cell: (one) => asker(one.actor) },
    { key: "detail", label: "Detail", wide: true, cell: (one) => one.detail },
    { key: "at", label: "When", kind: "number", cell: (one) => html`<${Time} at=${one.timestamp} />` },
  ];
  return html`<${Records} path="audit" rows="records" query=${{ entity_id: query.get("of") }} columns=${columns}
    filters=${html`<${Search} name="of" value=${query.get("of") ?? ""} label="Of" placeholder="Id of a task or worker" />`} empty=${["Audit", "No record matches"]} />`;
}
