// Buttons that move a memory between machines: push, pull, hand over. Each shows what will move first.
import { html, signal } from "./html.js";
import { get, ofLeadership, ofProject, post } from "./api.js";
import { Changes } from "./parts/changes.js";
import { ReviewButton } from "./parts/review.js";
import { Badge, Said } from "./parts/states.js";
import { count } from "./parts/text.js";
import { isPresent, serving } from "./machines.js";
import { may } from "./session.js";

/** Milliseconds that a push or a pull may take. */
const LONG = 600_000;

export const unsynced = (cid, node, signal) => get(ofProject(cid, "unsynced"), { node }, { signal, deadline: 60_000 });

/** Rows that a machine has and the others lack, and what they wait for. */
export function Unsynced({ found }) {
  if (!found.total) return html`<p class="dim">The shared memory has every row of this machine.</p>`;
  return html`<p>${count(found.total, "row")} that the shared memory lacks: ${found.reason}.
      ${found.remedy && html`<span class="dim"> What to do: <${Said} text=${found.remedy} /></span>`}</p>
    <${Changes} found=${found} />`;
}

export function PushButton({ cid, machine, small = true }) {
  if (!may("memory")) return null;
  const { node } = machine;
  return html`<${ReviewButton} label="push" small=${small} disabled=${!isPresent(machine)}
    title=${`Send what ${node} has and the others lack`} heading=${`Push the memory of ${node}`}
    load=${(signal) => unsynced(cid, node, signal)}
    body=${(found) => html`<${Unsynced} found=${found} />`}
    verb=${(found) => (found.total ? `Push ${count(found.total, "row")}` : null)}
    act=${() => post(ofProject(cid, "push"), { node }, { deadline: LONG })}
    done=${(result) => PUSHED[result.outcome]?.(result, node) ?? `${node}: ${result.outcome}`} />`;
}

const PUSHED = {
  committed: (result, node) => `${node} committed snapshot ${result.seq}`,
  proposed: (result, node) => `${node} offered ${count(result.rows, "row")} to the primary`,
  unchanged: (_, node) => `${node} had nothing to push`,
};

export function PullButton({ cid, machine, small = true }) {
  if (!may("memory")) return null;
  const { node } = machine;
  return html`<${ReviewButton} label="pull" small=${small} disabled=${!isPresent(machine)}
    title=${`Bring ${node} up to the newest snapshot`} heading=${`Pull into the memory of ${node}`}
    load=${async (signal) => {
      const { project } = await get(ofProject(cid, "status"), { node }, { signal });
      return get(ofProject(cid, "diff"), { older: project.mirror_seq, newer: "head", node }, { signal, deadline: LONG });
    }}
    body=${(found) => html`<p>${found.older_seq === found.newer_seq
        ? `${node} has the newest snapshot, ${found.newer_seq}.`
        : `${node} has snapshot ${found.older_seq}; the newest one is ${found.newer_seq}.`}</p>
      <${Changes} found=${found} none="Nothing would change." />`}
    verb=${(found) => (found.older_seq === found.newer_seq ? null : `Pull snapshot ${found.newer_seq}`)}
    act=${() => post(ofProject(cid, "pull"), { node }, { deadline: LONG })}
    done=${(result) => `${node} has snapshot ${result.seq}: ${count(result.inserted, "row")} new, ${result.updated} changed, ${result.deleted} deleted`} />`;
}

/** Make another machine the primary of a project. */
export function HandOverButton({ cid, name, leader, machines, small = false }) {
  if (!may("memory")) return null;
  const nodes = serving(machines, cid);
  const others = nodes.filter(({ machine, project }) => machine.node !== leader && isPresent(machine) && !project.error);
  const chosen = signal(others[0]?.machine.node ?? null);
  return html`<${ReviewButton} label=${leader ? "hand over" : "choose a primary"} small=${small} disabled=${!others.length}
    title=${others.length ? "" : "No other machine of this project is present"}
    heading=${leader ? `Hand over the leadership of ${name}` : `Choose the primary of ${name}`}
    load=${async (signal) => (leader ? unsynced(cid, leader, signal).catch(() => null) : null)}
    body=${(found) => html`<${Choice} found=${found} leader=${leader} others=${others} chosen=${chosen} />`}
    verb=${() => (chosen.value ? (leader ? `Hand over to ${chosen.value}` : `Make ${chosen.value} the primary`) : null)}
    act=${() => post(ofLeadership(cid, "leadership/select"), { node: chosen.peek() }, { deadline: 45_000 })}
    done=${(result) => (result.primary_node_id === chosen.peek() ? `${result.primary_node_id} is the primary now` : `${chosen.peek()} was chosen, and takes over as soon as it can`)} />`;
}

function Choice({ found, leader, others, chosen }) {
  return html`<fieldset class="nexts">
      <legend>The next primary</legend>
      ${others.map(({ machine, project }) => html`<label key=${machine.node}>
        <input type="radio" name="primary" checked=${chosen.value === machine.node} onChange=${() => (chosen.value = machine.node)} />
        <span class="strong">${machine.node}</span>
        ${project.lag > 0 ? html`<${Badge} kind="warn">${count(project.lag, "snapshot")} behind</${Badge}>` : html`<${Badge} kind="ok">current</${Badge}>`}
        ${project.unsynced > 0 && html`<span class="dim">${count(project.unsynced, "row")} unsynced</span>`}
      </label>`)}
    </fieldset>
    <p>${leader ? `${leader} sends what it has not sent yet, then gives its lease back; the epoch goes up by one.` : "It takes the lease with the next epoch, and commits the snapshots from then on."}</p>
    ${found?.total > 0 && html`<h3>${leader} sends first</h3><${Changes} found=${found} />`}`;
}
