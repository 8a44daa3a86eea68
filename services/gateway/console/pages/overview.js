// Every machine, what needs attention, and what changed when.
import { html } from "../app/html.js";
import { get, ofProject, remove } from "../app/api.js";
import { isLive } from "../app/events.js";
import { href, place, setQuery } from "../app/router.js";
import { may } from "../app/session.js";
import { now, projects as shared, useResource } from "../app/store.js";
import { isPresent, lastSeen, useMachines } from "../app/machines.js";
import { HandOverButton, PullButton, PushButton, Unsynced, unsynced } from "../app/sync.js";
import { ReviewButton } from "../app/parts/review.js";
import { Badge, Empty, Icon, Said, Shown } from "../app/parts/states.js";
import { Table } from "../app/parts/table.js";
import { bytes, count, number, tables } from "../app/parts/text.js";
import { Time } from "../app/parts/time.js";

export const title = "Overview";

/** Snapshots of a project that the timeline looks at. */
const MOST = 200;
const DAY = 86_400_000;
const SPANS = { "24h": ["24 hours", DAY, 24], "7d": ["7 days", 7 * DAY, 28] };

export default function Page({ params }) {
  const machines = useMachines();
  const known = shared.value ?? { data: undefined, loading: true };
  return html`<div class="spread"><h1>Overview</h1>
      ${machines.data && known.data && html`<p class="dim">${count(machines.data.length, "machine")}, ${count(known.data.projects.length, "project")}</p>`}</div>
    ${machines.data && known.data && html`<${Attention} machines=${machines.data} projects=${known.data.projects} />`}
    <section class="panel" aria-labelledby="machines">
      <header><h2 id="machines">Machines</h2></header>
      <${Shown} found=${machines} what="Machines">${(found) => html`<${Machines} machines=${found} open=${params.query.get("open")} />`}</${Shown}>
    </section>
    <section class="panel" aria-labelledby="changes">
      <${Shown} found=${known} what="Projects">${(found) => html`<${Timeline} key=${found.projects.map((one) => one.canonical_id).join()} projects=${found.projects} />`}</${Shown}>
    </section>`;
}

/** What a person should look at, the worst first, each with what mends it. */
function Attention({ machines, projects }) {
  const found = [];
  const add = (kind, text, mend) => found.push({ kind, text, mend });
  for (const project of projects) {
    if (project.primary_node_id) continue;
    if (!project.nodes.length) add("warn", `No machine that has ${project.name} is present. Start one: \`membridge up\``, null);
    else {
      add("fail", `${project.name} has no primary: no snapshot is made until there is one.`,
        html`<${HandOverButton} cid=${project.canonical_id} name=${project.name} machines=${machines} small />`);
    }
  }
  for (const machine of machines) {
    const { node } = machine;
    for (const one of machine.projects) {
      const to = (tab) => href("projects", [one.project], { tab, node });
      const isHere = isPresent(machine);
      if (isHere && one.error) add("fail", `${node} cannot serve ${one.name}: ${one.error}`, html`<a class="button small" href=${to("doctor")}>Doctor</a>`);
      if (one.quarantined) {
        add("warn", `${node} could not merge ${count(one.quarantined, "item")} of ${one.name}.`, html`<a class="button small" href=${to("quarantine")}>Look at ${one.quarantined === 1 ? "it" : "them"}</a>`);
      }
      if (isHere && one.lag > 0) add("warn", `${node} is ${count(one.lag, "snapshot")} behind in ${one.name}.`, html`<${PullButton} cid=${one.project} machine=${machine} />`);
      if (!isHere && one.unsynced) add("warn", `${node} left with ${count(one.unsynced, "row")} of ${one.name} that no other machine has. Start it again: \`membridge up\``, null);
    }
  }
  const versions = [...new Set(machines.filter(isPresent).map((one) => one.version))];
  if (versions.length > 1) add("warn", `Machines run different versions: ${versions.join(", ")}. Upgrade the older ones.`, null);
  if (!found.length) return machines.length > 0 && isLive.value && html`<p class="calm"><${Badge} kind="ok">Nothing needs attention</${Badge}></p>`;
  return html`<section class="panel attention" aria-labelledby="attention">
    <header><h2 id="attention">Needs attention</h2></header>
    <ul>${found.sort((one, other) => one.kind.localeCompare(other.kind)).map(({ kind, text, mend }) => html`<li key=${text}>
      <span class=${`lead ${kind}`}><${Icon} name=${kind} /><span class="unseen">${kind === "fail" ? "Failure" : "Warning"}: </span></span>
      <span><${Said} text=${text} /></span><span class="mend">${mend}</span></li>`)}</ul>
  </section>`;
}

function Machines({ machines, open }) {
  if (!machines.length) {
    return html`<${Empty} title="No machine yet"><code>membridge up</code> on a machine makes it the first one.</${Empty}>`;
  }
  const each = (cell) => (machine) => html`<div class="each">${machine.projects.map((one) => html`<div key=${one.project}>${cell(one, machine)}</div>`)}</div>`;
  const several = machines.some((one) => one.projects.length > 1);
  const columns = [
    { key: "machine", label: "Machine", kind: "main", by: (one) => one.node, cell: (one) => html`${one.node} ${!isPresent(one) && html` <${Badge} kind="off">away</${Badge}>`}` },
    several && { key: "project", label: "Project", by: (one) => one.projects[0]?.name, cell: each((one) => html`<a href=${href("projects", [one.project])}>${one.name}</a>`) },
    { key: "role", label: "Role", by: (one) => (isPresent(one) ? one.projects[0]?.role : null), cell: each((one, machine) => html`<${Role} role=${isPresent(machine) ? one.role : "none"} />`) },
    { key: "seen", label: "Last seen", by: (one) => new Date(lastSeen(one)).getTime(), cell: (one) => html`<${Time} at=${lastSeen(one)} />` },
    { key: "fresh", label: "Snapshot", by: (one) => one.projects[0]?.mirror_seq, cell: each((one, machine) => html`<${Fresh} project=${one} isHere=${isPresent(machine)} />`) },
    { key: "unsynced", label: "Unsynced", kind: "number", by: (one) => one.projects.reduce((all, each) => all + each.unsynced, 0), cell: each((one, machine) => one.unsynced
      ? html`<button type="button" class="link" aria-label=${`${count(one.unsynced, "unsynced row")} of ${machine.node}`} onClick=${() => setQuery({ open: machine.node })}>${number(one.unsynced)}</button>` : "0") },
    { key: "version", label: "Version", wide: true, by: (one) => one.version, cell: (one) => html`<span class="dim" title=${`${one.os}, ${one.arch}, Python ${one.python}`}>${one.version}</span>` },
  ].filter(Boolean);
  return html`<${Table} caption="Machines" columns=${columns} rows=${machines} keyOf=${(one) => one.node} open=${open}
    onToggle=${(node) => setQuery({ open: node })} detail=${(one) => html`<${Machine} machine=${one} />`} />`;
}

const Role = ({ role }) => html`<span class=${`role ${role}`}>${role === "primary" && html`<${Icon} name="star" /> `}${role === "none" ? html`<span class="dim">–</span>` : role}</span>`;

function Fresh({ project, isHere }) {
  if (project.error) return html`<${Badge} kind="fail" title=${project.error}>cannot serve</${Badge}>`;
  const lag = project.lag > 0 && html` <${Badge} kind=${isHere ? "warn" : "off"}>${number(project.lag)} behind</${Badge}>`;
  return html`<span title=${`The newest snapshot is ${project.head_seq}`}>${number(project.mirror_seq)}</span>${lag || (isHere && html` <${Badge} kind="ok">current</${Badge}>`)}`;
}

/** An open machine: what it has that the others lack, and what it is. */
function Machine({ machine }) {
  const isHere = isPresent(machine);
  return html`<div class="stack">
    ${machine.projects.map((one) => html`<section key=${one.project} class="stack">
      <div class="spread"><h3>Unsynced in ${one.name}</h3>
        ${isHere && html`<span class="row"><${PushButton} cid=${one.project} machine=${machine} />
        <${PullButton} cid=${one.project} machine=${machine} /></span>`}</div>
      ${isHere ? html`<${UnsyncedRows} cid=${one.project} machine=${machine} project=${one} />`
        : html`<p>${one.unsynced ? `${count(one.unsynced, "row")}, when it was seen last.` : "Nothing, when it was seen last."}</p>`}
      <dl class="facts small">
        <dt>Rows</dt><dd>${one.counted_at ? html`${Object.entries(one.rows).filter(([, rows]) => rows).map(([name, rows]) => tables(name, rows)).join(", ") || "none"} <span class="dim">as of <${Time} at=${one.counted_at} /></span>` : "not counted yet"}</dd>
        <dt>Database</dt><dd class="mono">${one.database}</dd>
      </dl>
    </section>`)}
    <dl class="facts small">
      <dt>System</dt><dd>${machine.os}, ${machine.arch}, Python ${machine.python}, Membridge ${machine.version}</dd>
      <dt>Started</dt><dd><${Time} at=${machine.started_at} /></dd>
      ${machine.addresses.length > 0 && html`<dt>Addresses</dt><dd class="mono">${machine.addresses.join(", ")}</dd>`}
    </dl>
    ${!isHere && !machine.isThere && may("memory") && html`<p><${ReviewButton} label="forget this machine" small heading=${`Forget ${machine.node}`}
      body=${() => html`<p>${machine.node} is no longer listed here. Its keys stay valid and its memory stays where it is: when it comes back, it is listed again. To lock it out: <code>membridge nodes revoke ${machine.node}</code></p>`}
      verb="Forget 1 machine" act=${() => remove(`/api/nodes/${encodeURIComponent(machine.node)}`)} done=${`${machine.node} is forgotten`} /></p>`}
  </div>`;
}

function UnsyncedRows({ cid, machine, project }) {
  const found = useResource((signal) => unsynced(cid, machine.node, signal), [cid, machine.node, project.unsynced, project.mirror_seq]);
  return html`<${Shown} found=${found} what="Unsynced rows" lines=${2}>${(rows) => html`<${Unsynced} found=${rows} />`}</${Shown}>`;
}

/** Snapshots of all projects, newest first, by machine and time. */
function Timeline({ projects }) {
  const { query } = place.value;
  const wanted = query.get("span") in SPANS ? query.get("span") : "7d";
  const by = query.get("by") ?? "";
  const found = useResource(
    async (signal) => {
      const pages = await Promise.all(projects.filter((one) => one.nodes.length).map(async (project) => {
        const history = await get(ofProject(project.canonical_id, "snapshots"), { limit: MOST }, { signal, deadline: 40_000 });
        const changes = new Map(history.changes.map((one) => [one.seq, one.tables]));
        return history.records.map((record) => ({ ...record, name: project.name, changes: changes.get(record.seq), at: Date.parse(record.created_at) }));
      }));
      return pages.flat().sort((one, other) => other.at - one.at);
    },
    [projects.map((one) => one.canonical_id + (one.nodes.length > 0)).join()],
    { events: ["memory"], when: (data) => /snapshot/.test(data?.type ?? "") },
  );
  const several = projects.length > 1;
  if (projects.length && !projects.some((one) => one.nodes.length)) {
    return html`<header><h2 id="changes">Snapshots</h2></header><${Empty} title="No machine is present">Its snapshots are shown here as soon as one is.</${Empty}>`;
  }
  return html`<header><h2 id="changes">Snapshots</h2>
      <span class="row">
        ${Object.entries(SPANS).map(([key, [label]]) => html`<button key=${key} type="button" class="small" aria-pressed=${String(key === wanted)} onClick=${() => setQuery({ span: key }, { replace: true })}>${label}</button>`)}
        ${found.data && html`<label class="unseen" for="by">Machine</label><select id="by" class="small" value=${by} onChange=${(event) => setQuery({ by: event.target.value }, { replace: true })}>
          <option value="">All machines</option>${[...new Set(found.data.map((one) => one.node))].sort().map((node) => html`<option key=${node} value=${node}>${node}</option>`)}</select>`}
      </span></header>
    <${Shown} found=${found} what="Snapshots">${(records) => {
      const [, span, bars] = SPANS[wanted];
      const since = now.value - span;
      const chosen = records.filter((one) => one.at > since && (!by || one.node === by));
      if (!chosen.length) return html`<${Empty} title=${`No snapshot within ${SPANS[wanted][0]}`}>A machine makes one when its memory changed.</${Empty}>`;
      return html`<${Strip} records=${chosen} since=${since} span=${span} bars=${bars} />
        <ol class="timeline">${chosen.slice(0, 60).map((one) => html`<li key=${one.project + one.seq}>
          <span class="when"><${Time} at=${one.created_at} /></span>
          <a href=${href("projects", [one.project], { tab: "history", open: one.seq })}>${several ? `${one.name} ` : "Snapshot "}${number(one.seq)}</a>
          <span class="who-made">${one.node}</span>
          <span class="dim grow">${grown(one)}</span>
          <span class="dim number">${one.object ? bytes(one.object.size_bytes) : ""}</span></li>`)}</ol>
        ${chosen.length > 60 && html`<p class="dim small body">The newest 60 of ${number(chosen.length)}; each project's history has them all.</p>`}`;
    }}</${Shown}>`;
}

/** By how many rows a snapshot grew, in words. */
function grown(record) {
  if (record.kind === "empty") return "a new epoch";
  if (!record.changes) return record.kind === "full" ? "everything" : "";
  const said = Object.entries(record.changes).filter(([, by]) => by).map(([name, by]) => `${by > 0 ? "+" : "−"}${tables(name, Math.abs(by))}`);
  return said.join(", ") || "rows changed";
}

/** How many snapshots there were over time. */
function Strip({ records, since, span, bars }) {
  const counts = Array.from({ length: bars }, () => 0);
  for (const one of records) counts[Math.min(bars - 1, Math.floor(((one.at - since) / span) * bars))] += 1;
  const most = Math.max(...counts);
  return html`<svg class="strip" viewBox=${`0 0 ${bars} 10`} preserveAspectRatio="none" role="img" aria-label=${`${count(records.length, "snapshot")} over time`}>
    ${counts.map((value, index) => html`<rect key=${index} x=${index + 0.1} width="0.8" y=${10 - (value ? 1.5 + (8.5 * value) / most : 0.4)} height=${value ? 1.5 + (8.5 * value) / most : 0.4} class=${value ? "" : "none"} />`)}</svg>`;
}
