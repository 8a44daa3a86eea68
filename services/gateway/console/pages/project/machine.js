// What is of one machine: backups of its database, what its doctor finds, and its jobs.
import { html } from "../../app/html.js";
import { get, ofProject, post } from "../../app/api.js";
import { setQuery } from "../../app/router.js";
import { may } from "../../app/session.js";
import { useResource } from "../../app/store.js";
import { Changes, summed, total } from "../../app/parts/changes.js";
import { ReviewButton } from "../../app/parts/review.js";
import { Badge, Empty, Said, Shown } from "../../app/parts/states.js";
import { Table } from "../../app/parts/table.js";
import { asker, bytes, count, number } from "../../app/parts/text.js";
import { Time, span } from "../../app/parts/time.js";
import { OfMachine } from "./now.js";

const LONG = 600_000;

export function Backups({ project, node, nodes }) {
  const cid = project.canonical_id;
  const found = useResource((signal) => get(ofProject(cid, "backups"), { node }, { signal }), [cid, node], { events: ["job"], when: (job) => job?.project === cid && job.state !== "running" });
  const columns = [
    { key: "when", label: "Made", kind: "main", by: (one) => one.created_at, cell: (one) => html`<${Time} at=${one.created_at} />` },
    { key: "reason", label: "Before", by: (one) => one.reason, cell: (one) => one.reason },
    { key: "what", label: "Holds", by: (one) => (one.full_copy ? Infinity : one.rows), cell: (one) => (one.full_copy ? "the whole database" : `${count(one.rows, "row")} as they were`) },
    { key: "size", label: "Size", kind: "number", by: (one) => one.size_bytes, cell: (one) => bytes(one.size_bytes) },
    { key: "actions", label: "", kind: "actions", cell: (one) => html`<${RestoreBackup} cid=${cid} node=${node} backup=${one} done=${found.reload} />` },
  ];
  return html`<${OfMachine} node=${node} nodes=${nodes} />
    ${node && html`<section class="panel" aria-label="Backups"><${Shown} found=${found} what="Backups">${({ backups }) => backups.length
      ? html`<${Table} caption="Backups, newest first" columns=${columns} rows=${backups} keyOf=${(one) => one.id || one.path} />`
      : html`<${Empty} title="No backup yet">One is made before a merge or a restore writes to the database.</${Empty}>`}</${Shown}></section>`}`;
}

function RestoreBackup({ cid, node, backup, done }) {
  if (!may("memory")) return null;
  const body = { node, backup: backup.id || "newest" };
  const ask = (fields, options) => post(ofProject(cid, "backups/restore"), { ...body, ...fields }, { deadline: LONG, ...options });
  return html`<${ReviewButton} label="restore" small heading=${`Restore a backup of ${node}`} isDanger
    load=${(signal) => ask({ limit: 200 }, { signal })}
    body=${(found) => html`<p>The database of ${node} becomes what it was <${Time} at=${found.created_at} style="ago" />${found.writes ? `: ${count(found.writes, "write")} since then are taken back` : ""}. What it is now is backed up first.</p>
      ${found.damage && html`<p><${Badge} kind="fail">damaged now</${Badge}> ${found.damage}</p>`}
      ${found.open_in.length > 0 && html`<p><${Badge} kind="warn">open</${Badge}> These programs have it open: ${found.open_in.join(", ")}</p>`}
      <${Changes} found=${found} none="The database has the same rows." />`}
    verb=${(found) => (total(found.tables) || found.damage ? `Restore: ${summed(found.tables) || "same rows"}` : null)}
    act=${() => ask({ apply: true })} done=${() => (done(), `The backup is restored on ${node}`)} />`;
}

const FINDINGS = { ok: ["ok", "fine"], warn: ["warn", "look"], fail: ["fail", "broken"], skipped: ["off", "not checked"] };

export function Doctor({ project, node, nodes }) {
  const cid = project.canonical_id;
  const found = useResource((signal) => get(ofProject(cid, "doctor"), { node }, { signal, deadline: 70_000 }), [cid, node]);
  return html`<${OfMachine} node=${node} nodes=${nodes}><button type="button" disabled=${found.loading} onClick=${found.reload}>${found.loading ? "Examining…" : "Examine again"}</button></${OfMachine}>
    ${node && html`<section class="panel" aria-label="What the doctor finds"><${Shown} found=${found} what="The doctor" lines=${8}>${({ checks }) => html`<ul class="checks">${checks.map((one) => {
      const [kind, word] = FINDINGS[one.finding];
      return html`<li key=${one.name}><${Badge} kind=${kind}>${word}</${Badge}><div><p class="strong">${one.name}</p><p class="dim"><${Said} text=${one.detail} /></p>
        ${one.remedy && html`<p>What to do: <${Said} text=${one.remedy} /></p>`}</div></li>`;
    })}</ul>`}</${Shown}></section>`}`;
}

const STATES = { running: ["off", "running"], done: ["ok", "done"], failed: ["fail", "failed"], abandoned: ["warn", "abandoned"] };

export function Jobs({ project, query }) {
  const cid = project.canonical_id;
  const found = useResource((signal) => get(ofProject(cid, "jobs"), {}, { signal }), [cid], { events: ["job"], when: (job) => !job || job.project === cid });
  const columns = [
    { key: "kind", label: "Job", kind: "main", by: (one) => one.kind, cell: (one) => one.kind },
    { key: "state", label: "State", by: (one) => one.state, cell: (one) => html`<${Badge} kind=${STATES[one.state][0]}>${STATES[one.state][1]}</${Badge}>` },
    { key: "node", label: "Machine", by: (one) => one.node, cell: (one) => one.node },
    { key: "when", label: "Started", by: (one) => one.started_at, cell: (one) => html`<${Time} at=${one.started_at} />` },
    { key: "took", label: "Took", kind: "number", by: (one) => one.ended_at && Date.parse(one.ended_at) - Date.parse(one.started_at), cell: (one) => (one.ended_at ? took(one) : "–") },
    { key: "by", label: "Asked by", wide: true, by: (one) => one.requested_by, cell: (one) => html`<span class="dim">${one.requested_by ? asker(one.requested_by) : "itself"}</span>` },
  ];
  return html`<section class="panel" aria-label="Jobs"><${Shown} found=${found} what="Jobs">${({ jobs }) => jobs.length
    ? html`<${Table} caption="Jobs, newest first" columns=${columns} rows=${jobs} keyOf=${(one) => one.id} open=${query.get("open")}
        onToggle=${(id) => setQuery({ open: id })} detail=${(one) => html`<dl class="facts small">
          ${one.error && html`<dt>Error</dt><dd>${one.error}</dd>`}${one.result && html`<dt>Result</dt><dd>${one.result}</dd>`}
          <dt>Steps</dt><dd>${one.steps.map((step) => `${step.name} ${number(Math.round(step.seconds * 1000))} ms`).join(", ") || "none"}</dd>
          <dt>Id</dt><dd class="mono">${one.id}</dd></dl>`} />`
    : html`<${Empty} title="No job yet">Pushes, pulls and restores are listed here.</${Empty}>`}</${Shown}></section>`;
}

function took(job) {
  const milliseconds = Date.parse(job.ended_at) - Date.parse(job.started_at);
  return milliseconds < 1000 ? `${milliseconds} ms` : span(milliseconds);
}
