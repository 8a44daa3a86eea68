// Workers: what each can do, how loaded it is, and whether it takes new tasks.
import { html } from "../../app/html.js";
import { get, post, remove } from "../../app/api.js";
import { setQuery } from "../../app/router.js";
import { may } from "../../app/session.js";
import { useResource } from "../../app/store.js";
import { useKept } from "../../app/parts/filters.js";
import { ReviewButton } from "../../app/parts/review.js";
import { Empty, Shown } from "../../app/parts/states.js";
import { Table } from "../../app/parts/table.js";
import { count, number } from "../../app/parts/text.js";
import { Time } from "../../app/parts/time.js";
import { AT, isStatus, Status, TaskLink, useCalm } from "./parts.js";

export function Workers({ query }) {
  const resource = useResource((signal) => get(`${AT}/workers`, {}, { signal }), [], { events: ["node", "audit"] });
  const stats = useResource((signal) => get(`${AT}/stats`, {}, { signal }), []);
  useCalm(() => (resource.reload(), stats.reload()), isStatus);
  const found = useKept(resource);
  const rates = useKept(stats).data ?? { ended_by_agent: {}, ended_by_worker: {} };
  const columns = [
    { key: "worker", label: "Worker", kind: "main", by: (one) => one.id, cell: (one) => one.id },
    { key: "status", label: "State", by: (one) => one.status, cell: (one) => html`<${Status} status=${one.status} title=${one.detail} />${one.detail && html`<p class="dim small">${one.detail}</p>`}` },
    { key: "load", label: "Load", by: (one) => one.active_leases, cell: (one) => html`<${Load} worker=${one} />` },
    { key: "rate", label: "Last minute", kind: "number", by: (one) => rates.ended_by_worker[one.id] ?? 0, cell: (one) => number(rates.ended_by_worker[one.id]) },
    { key: "labels", label: "Labels", wide: true, cell: (one) => one.capabilities.labels.join(", ") || html`<span class="dim">none</span>` },
    { key: "seen", label: "Last heard", kind: "number", by: (one) => one.last_heartbeat, cell: (one) => html`<${Time} at=${one.last_heartbeat} />` },
    ...(may("tasks") ? [{ key: "actions", label: "", kind: "actions", cell: (one) => html`<${Actions} worker=${one} done=${resource.reload} />` }] : []),
  ];
  return html`<section class="panel" aria-label="Workers">
    <${Shown} found=${found} what="The workers">
      ${(data) => data.workers.length
        ? html`<${Table} caption="Workers" columns=${columns} rows=${data.workers} keyOf=${(one) => one.id}
            open=${query.get("open")} onToggle=${(id) => setQuery({ open: id })} detail=${(one) => html`<${Detail} id=${one.id} worker=${one} />`} />`
        : html`<${Empty} title="No worker yet">A node runs tasks with <code>MEMBRIDGE_WORKER=1</code>; another program can lease them over HTTP.</${Empty}>`}
    </${Shown}>
    ${Object.keys(rates.ended_by_agent).length > 0 && html`<p class="dim small foot">Attempts that ended in the last minute: ${Object.entries(rates.ended_by_agent).map(([agent, many]) => `${agent} ${number(many)}`).join(", ")}</p>`}
  </section>`;
}

/** How many of the tasks that a worker can run at once it runs. */
function Load({ worker }) {
  const most = worker.capabilities.max_concurrency;
  const said = `${worker.active_leases} of ${most}`;
  return html`<span class="row"><meter min="0" max=${most} value=${Math.min(worker.active_leases, most)} aria-label=${`Load of ${worker.id}`}>${said}</meter><span class="nowrap">${said}</span></span>`;
}

function Actions({ worker, done }) {
  const at = `${AT}/workers/${encodeURIComponent(worker.id)}`;
  const act = (verb) => async () => {
    const result = await (verb === "remove" ? remove(at) : post(`${at}/${verb}`));
    done();
    return result;
  };
  const held = worker.active_leases ? `It runs ${count(worker.active_leases, "task")} now, which it finishes.` : "It runs no task now.";
  if (worker.status === "offline") {
    return html`<${ReviewButton} small label="remove" isDanger verb=${`Remove ${worker.id}`} act=${act("remove")} done=${`${worker.id} is removed`}
      body=${() => html`<p><strong>${worker.id}</strong> leaves the list. When it comes back it is a new worker.</p>`} />`;
  }
  return worker.status === "syncing"
    ? html`<${ReviewButton} small label="resume" verb=${`Resume ${worker.id}`} act=${act("resume")} done=${`${worker.id} takes tasks again`}
        body=${() => html`<p><strong>${worker.id}</strong> takes new tasks again, ${worker.capabilities.max_concurrency} at once.</p>`} />`
    : html`<${ReviewButton} small label="drain" verb=${`Drain ${worker.id}`} act=${act("drain")} done=${`${worker.id} takes no new tasks`}
        body=${() => html`<p><strong>${worker.id}</strong> gets no new tasks. ${held}</p>`} />`;
}

function Detail({ id, worker }) {
  const resource = useResource((signal) => get(`${AT}/workers/${encodeURIComponent(id)}`, {}, { signal }), [id]);
  useCalm(resource.reload, isStatus);
  const found = useKept(resource);
  return html`<div class="stack"><dl class="facts">
      <dt>System</dt><dd>${[worker.os_info, worker.agent_version].map((one) => one.replace(/^[\s,]+/, "")).filter(Boolean).join(", ") || "unknown"}</dd>
      <dt>Program</dt><dd>${worker.capabilities.claude_cli ? "has claude" : "has no claude"}</dd>
      <dt>Known since</dt><dd><${Time} at=${worker.registered_at} /></dd>
    </dl>
    <${Shown} found=${found} what="Its tasks" lines=${1}>
      ${(data) => data.leases.length === 0
        ? html`<p class="dim">It runs no task.</p>`
        : html`<ul class="bullets">${data.leases.map((one) => html`<li key=${one.id}><${TaskLink} id=${one.task_id} /> since <${Time} at=${one.started_at} />, lease ends <${Time} at=${one.expires_at} style="until" /></li>`)}</ul>`}
    </${Shown}></div>`;
}
