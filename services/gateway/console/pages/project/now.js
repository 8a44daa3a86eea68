// How a project stands now: its lease, and each machine that has it.
import { html } from "../../app/html.js";
import { get, ofLeadership } from "../../app/api.js";
import { setQuery } from "../../app/router.js";
import { now, useResource } from "../../app/store.js";
import { isPresent, lastSeen } from "../../app/machines.js";
import { HandOverButton, PullButton, PushButton } from "../../app/sync.js";
import { Badge, Empty, Icon, Shown } from "../../app/parts/states.js";
import { Table } from "../../app/parts/table.js";
import { asker, number } from "../../app/parts/text.js";
import { Time, span } from "../../app/parts/time.js";

export function Now({ project, machines, nodes }) {
  return html`<div class="panels">
      <${Leadership} project=${project} machines=${machines} />
      <section class="panel" aria-labelledby="memory">
        <header><h2 id="memory">Memory</h2></header>
        <dl class="facts body">
          <dt>Newest snapshot</dt><dd>${number(project.head_seq)}</dd>
          <dt>Unsynced</dt><dd>${project.unsynced ? `${number(project.unsynced)} rows on all machines` : "nothing"}</dd>
          <dt>Conflicts kept</dt><dd>${number(project.conflicts)}</dd>
          <dt>Set aside</dt><dd>${project.quarantined ? html`<${Badge} kind="warn">${number(project.quarantined)}</${Badge}>` : "nothing"}</dd>
          <dt>Canonical id</dt><dd class="mono">${project.canonical_id}</dd>
        </dl>
      </section>
    </div>
    <section class="panel" aria-labelledby="nodes">
      <header><h2 id="nodes">Machines</h2></header>
      ${nodes.length ? html`<${Nodes} cid=${project.canonical_id} nodes=${nodes} />` : html`<${Empty} title="No machine has this project now">Start one: <code>membridge up</code></${Empty}>`}
    </section>`;
}

/** Who leads, under which epoch, and for how long: the primary renews its lease, and each renewal is an event. */
function Leadership({ project, machines }) {
  const cid = project.canonical_id;
  const found = useResource((signal) => get(ofLeadership(cid, "leadership"), {}, { signal }), [cid, project.primary_node_id], {
    events: ["lease", "memory"],
    when: (data, name) => name === "lease" || /leadership/.test(data?.type ?? ""),
  });
  return html`<section class="panel" aria-labelledby="leadership">
    <header><h2 id="leadership">Leadership</h2>
      <${HandOverButton} cid=${cid} name=${project.name} leader=${found.data?.primary_node_id} machines=${machines} small /></header>
    <${Shown} found=${found} what="Leadership">${(lease) => html`<dl class="facts body">
      <dt>Primary</dt><dd>${lease.primary_node_id ? html`<span class="role primary"><${Icon} name="star" /> ${lease.primary_node_id}</span>` : html`<${Badge} kind="fail">none</${Badge}>`}</dd>
      <dt>Epoch</dt><dd>${number(lease.epoch)}</dd>
      ${lease.primary_node_id && html`<dt>Lease</dt><dd><${Lease} lease=${lease} at=${found.at} /></dd>
        <dt>Renewed</dt><dd><${Time} at=${lease.issued_at} />${lease.issued_by && html` <span class="dim">by ${asker(lease.issued_by)}</span>`}</dd>`}
      <dt>When it fails</dt><dd>${POLICIES[lease.policy]}</dd>
      ${lease.preferred && html`<dt>Preferred</dt><dd>${lease.preferred}</dd>`}
    </dl>`}</${Shown}>
  </section>`;
}

const POLICIES = {
  manual: "the preferred machine takes over, no other one",
  auto: "the freshest machine that is present takes over",
};

function Lease({ lease, at }) {
  const whole = lease.lease_seconds * 1000;
  // The clock of another machine may differ: counted from when it was asked, a renewal ago at most.
  const left = Math.min(whole, Math.max(0, Math.min(at + whole, Math.max(Date.parse(lease.expires_at), at)) - now.value));
  return html`<span class="lease"><progress max=${whole} value=${left} aria-label="Time left of the lease" />
    <span class="nowrap">${left ? `${span(left)} left` : "renewal is overdue"}</span></span>`;
}

function Nodes({ cid, nodes }) {
  const columns = [
    { key: "machine", label: "Machine", kind: "main", by: ({ machine }) => machine.node, cell: ({ machine }) => html`${machine.node} ${!isPresent(machine) && html`<${Badge} kind="off">away</${Badge}>`}` },
    { key: "role", label: "Role", by: ({ machine, project }) => (isPresent(machine) ? project.role : null), cell: ({ machine, project }) => (isPresent(machine) ? html`<span class=${`role ${project.role}`}>${project.role === "primary" && html`<${Icon} name="star" /> `}${project.role}</span>` : html`<span class="dim">–</span>`) },
    { key: "seen", label: "Last seen", by: ({ machine }) => new Date(lastSeen(machine)).getTime(), cell: ({ machine }) => html`<${Time} at=${lastSeen(machine)} />` },
    { key: "snapshot", label: "Snapshot", by: ({ project }) => project.mirror_seq, cell: ({ machine, project }) => html`<span class="row tight">${number(project.mirror_seq)}
      ${project.error ? html`<${Badge} kind="fail" title=${project.error}>cannot serve</${Badge}>` : project.lag > 0 ? html`<${Badge} kind="warn">${number(project.lag)} behind</${Badge}>` : isPresent(machine) && html`<${Badge} kind="ok">current</${Badge}>`}</span>` },
    { key: "unsynced", label: "Unsynced", kind: "number", by: ({ project }) => project.unsynced, cell: ({ project }) => number(project.unsynced) },
    { key: "compared", label: "Compared", wide: true, by: ({ project }) => project.audited_at, cell: ({ project }) => html`<${Time} at=${project.audited_at} />` },
    { key: "actions", label: "", kind: "actions", cell: ({ machine }) => html`<span class="row end"><${PushButton} cid=${cid} machine=${machine} />
      <${PullButton} cid=${cid} machine=${machine} /></span>` },
  ];
  return html`<${Table} caption="Machines of the project" columns=${columns} rows=${nodes} keyOf=${({ machine }) => machine.node} />`;
}

/** A choice of the machine that is asked, where the answer is of one machine. */
export function OfMachine({ node, nodes, children }) {
  const here = nodes.filter(({ machine }) => isPresent(machine)).map(({ machine }) => machine.node);
  if (!node) return html`<${Empty} title="No machine of this project is present">Start one: <code>membridge up</code></${Empty}>`;
  return html`<div class="row"><label for="node">Machine</label>
      <select id="node" value=${node} onChange=${(event) => setQuery({ node: event.target.value, open: null })}>
        ${here.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>${children}</div>`;
}
