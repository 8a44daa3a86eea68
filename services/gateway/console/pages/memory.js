// Memories: found by words and filters, each with a page of its own, and forgotten on every machine.
import { html, useState } from "../app/html.js";
import { address, get, ofProject } from "../app/api.js";
import { href } from "../app/router.js";
import { may } from "../app/session.js";
import { projects, useResource } from "../app/store.js";
import { ChoiceBar, Filters, More, Pick, Search, useChoice, useKept } from "../app/parts/filters.js";
import { Empty, Shown } from "../app/parts/states.js";
import { count } from "../app/parts/text.js";
import { Time } from "../app/parts/time.js";
import { Forget, KINDS, machine, Marked, Undo } from "./memory/parts.js";
import { One } from "./memory/one.js";

export const title = "Memory";

/** Memories that are shown at first and with each "more", and that one request has at most. */
const [SHOWN, PAGE] = [50, 200];
/** Types of observations that claude-mem has by itself. */
const TYPES = ["bugfix", "feature", "refactor", "change", "discovery", "decision"];
const FIELDS = ["q", "kind", "project", "type", "machine", "from", "to"];
const ORDERS = [["", "Newest first"], ["oldest", "Oldest first"]];

export default function Page({ params }) {
  const { data, error } = projects.value ?? {};
  const [cid, name] = params.path;
  if (name) return html`<${One} key=${name} cid=${cid} name=${name} />`;
  if (!data) return html`<h1>Memory</h1><${Shown} found=${{ data, error }} what="The memories" lines=${6} />`;
  const chosen = data.projects.find((one) => one.canonical_id === params.query.get("in")) ?? data.projects[0];
  if (!chosen) return html`<h1>Memory</h1><${Empty} title="No machine has a memory yet">Start one: <code>membridge up</code></${Empty}>`;
  return html`<${Found} key=${chosen.canonical_id} project=${chosen} all=${data.projects} query=${params.query} />`;
}

/** Return the filter of the query as the gateway takes it. */
function filterOf(query, primary) {
  const said = Object.fromEntries(FIELDS.map((name) => [name, query.get(name) ?? ""]));
  const filter = {};
  for (const name of ["q", "kind", "project", "type"]) if (said[name]) filter[name] = said[name];
  if (said.machine) filter.origin = said.machine === primary ? "" : said.machine;
  if (said.from) filter.since = new Date(`${said.from}T00:00`).toISOString();
  if (said.to) filter.until = new Date(new Date(`${said.to}T00:00`).getTime() + 86_400_000).toISOString();
  return { said, filter };
}

async function load(cid, filter, wanted, signal, order) {
  const memories = [];
  let page = { next: null };
  do {
    const query = { ...filter, order, limit: Math.min(PAGE, wanted - memories.length), after: page.next };
    const path = address(ofProject(cid, "memories"), query);
    page = await get(filter.origin === "" ? `${path}&origin=` : path, {}, { signal });
    memories.push(...page.memories);
  } while (page.next && memories.length < wanted);
  return { ...page, memories };
}

function Found({ project, all, query }) {
  const cid = project.canonical_id;
  const primary = project.primary_node_id ?? project.nodes[0];
  const { said, filter } = filterOf(query, primary);
  const asked = JSON.stringify(filter);
  const order = query.get("sort") === "oldest" ? "oldest" : undefined;
  const [wanted, setWanted] = useState(SHOWN);
  const live = { events: ["memory"], when: (event) => event?.project === cid && /snapshot_committed|merged/.test(event.type) };
  const found = useKept(useResource((signal) => load(cid, filter, wanted, signal, order), [cid, asked, wanted, order], live));
  const seen = useResource((signal) => load(cid, {}, PAGE, signal), [cid]);
  const choice = useChoice(asked);
  const values = (field) => [...new Set((seen.data?.memories ?? []).map((one) => one[field]).filter(Boolean))].sort();
  const machines = [...new Set([...project.nodes.map((one) => (one === primary ? one : `membridge-${one}`)), ...values("origin"), ...(said.machine ? [said.machine] : [])])];
  const types = [...new Set([...TYPES, ...values("type"), ...(said.type ? [said.type] : [])])];
  const isNarrowed = Object.keys(filter).length > 0;
  const canForget = may("memory");
  const wantedOf = () => (choice.all ? { filter } : { refs: choice.ids });
  return html`<div class="spread"><h1>Memory</h1>
      ${all.length > 1 && html`<${Pick} name="in" label="of" value=${cid} options=${all.map((one) => [one.canonical_id, one.name])} />`}</div>
    <${Undo} cid=${cid} done=${found.reload} />
    <section class="panel" aria-label="Memories">
      <${Filters}>
        <${Search} value=${said.q} label="Search" placeholder="Words in title and text" />
        <${Pick} name="kind" value=${said.kind} label="Kind" options=${KINDS} />
        <${Pick} name="type" value=${said.type} label="Type" options=${[["", "Any type"], ...types.map((one) => [one, one])]} />
        <${Search} name="project" value=${said.project} label="Folder" placeholder="Any" options=${values("project")} />
        <${Pick} name="machine" value=${said.machine} label="Machine" options=${[["", "Any machine"], ...machines.map((one) => [one, machine(one)])]} />
        <${Search} name="from" type="date" value=${said.from} label="From" />
        <${Search} name="to" type="date" value=${said.to} label="To" />
        <${Pick} name="sort" value=${order ?? ""} label="Order" options=${ORDERS} />
      </${Filters}>
      <${Shown} found=${found} what="The memories" lines=${8}>
        ${(data) => html`<${ChoiceBar} choice=${choice} shown=${canForget ? data.memories.map((one) => one.ref) : []} total=${data.total}
            canAll=${canForget && isNarrowed} matches=${isNarrowed ? `${count(data.total, "memory matches", "memories match")}` : count(data.total, "memory", "memories")}>
            <${Forget} cid=${cid} wanted=${wantedOf()} label="forget" nodes=${project.nodes} done=${() => (choice.clear(), found.reload())} />
          </${ChoiceBar}>
          ${data.memories.length === 0
            ? html`<${Empty} title=${isNarrowed ? "No memory matches" : "No memory yet"}>
                ${isNarrowed ? html`<a href=${href("memory", [], { in: query.get("in") })}>Show all memories</a>` : "What an agent learns is shown here as soon as it is in a snapshot."}</${Empty}>`
            : html`<ol class="hits">${data.memories.map((one) => html`<${Hit} key=${one.ref} ...${{ one, cid, primary, choice, canForget }} />`)}</ol>`}
          ${data.next && html`<${More} found=${found} onMore=${() => setWanted(wanted + SHOWN)} />`}`}
      </${Shown}>
    </section>`;
}

function Hit({ one, cid, primary, choice, canForget }) {
  return html`<li class=${choice.has(one.ref) ? "chosen" : ""}>
    ${canForget && html`<input type="checkbox" aria-label=${`Select ${one.title || one.ref}`} checked=${choice.has(one.ref)} onChange=${() => choice.toggle(one.ref)} />`}
    <div>
      <p class="spread"><a class="strong" href=${href("memory", [cid, one.ref])}>${one.title || "(no title)"}</a>
        <span class="dim small nowrap"><${Time} at=${one.created_at} none="no time" /></span></p>
      ${one.marks.length > 0 && html`<p class="snippet"><${Marked} text=${one.snippet} marks=${one.marks} /></p>`}
      <p class="dim small meta"><span>${one.type || one.kind}</span>${one.project && html`<span>${one.project}</span>`}<span>${machine(one.origin, primary)}</span></p>
    </div>
  </li>`;
}
