// One memory: who leads it, which machines have it, its history, and what went wrong.
import { html } from "../app/html.js";
import { go, href } from "../app/router.js";
import { projects } from "../app/store.js";
import { isPresent, serving, useMachines } from "../app/machines.js";
import { Empty, Failure, Loading, Shown } from "../app/parts/states.js";
import { Conflicts, Quarantine } from "./project/conflicts.js";
import { Backups, Doctor, Jobs } from "./project/machine.js";
import { History } from "./project/history.js";
import { Now } from "./project/now.js";

export const title = "Project";

/** On a phone the part that is open may be beside the screen. */
const seen = (tab) => tab?.scrollIntoView({ block: "nearest", inline: "center" });

/** Tabs by the name in the query; those of a single machine have a choice of it. */
const TABS = {
  now: ["Now", Now],
  history: ["History", History],
  conflicts: ["Conflicts", Conflicts],
  quarantine: ["Set aside", Quarantine],
  backups: ["Backups", Backups],
  doctor: ["Doctor", Doctor],
  jobs: ["Jobs", Jobs],
};

export default function Page({ params }) {
  const machines = useMachines();
  const known = projects.value;
  if (!known?.data) {
    return html`<h1>Project</h1>${known?.error ? html`<${Failure} error=${known.error} what="Projects" />` : html`<${Loading} />`}`;
  }
  const all = known.data.projects;
  const [cid] = params.path;
  const project = all.find((one) => one.canonical_id === cid || one.name === cid) ?? (cid ? null : all[0]);
  if (!project) {
    return html`<h1>Project</h1><${Empty} title=${cid ? "There is no such project" : "No project yet"}>
      ${cid ? html`<a href=${href("overview")}>The overview lists those that there are.</a>` : html`A machine brings the first one: <code>membridge up</code>`}</${Empty}>`;
  }
  const tab = params.query.get("tab") in TABS ? params.query.get("tab") : "now";
  const [, Tab] = TABS[tab];
  const to = (name) => href("projects", [project.canonical_id], { tab: name === "now" ? "" : name });
  const numbers = { conflicts: project.conflicts, quarantine: project.quarantined };
  return html`<div class="spread"><h1>${project.name}</h1>
      ${all.length > 1 && html`<span class="row"><label for="project" class="dim">Project</label>
        <select id="project" value=${project.canonical_id} onChange=${(event) => go(href("projects", [event.target.value], { tab }))}>
          ${all.map((one) => html`<option key=${one.canonical_id} value=${one.canonical_id}>${one.name}</option>`)}</select></span>`}</div>
    <nav class="tabs" aria-label="Parts of the project">${Object.entries(TABS).map(([name, [label]]) => html`<a key=${name} href=${to(name)}
      aria-current=${name === tab ? "page" : undefined} ref=${name === tab ? seen : null}>${label}${numbers[name] ? html` <span class="dim">${numbers[name]}</span>` : ""}</a>`)}</nav>
    <${Shown} found=${machines} what="Machines">${(found) => html`<${Tab} key=${project.canonical_id} project=${project} machines=${found}
      nodes=${serving(found, project.canonical_id)} query=${params.query} node=${asked(params.query, project, found)} />`}</${Shown}>`;
}

/** The machine to ask: the one of the query, else the primary, else one that is present. */
function asked(query, project, machines) {
  const here = serving(machines, project.canonical_id).filter(({ machine }) => isPresent(machine)).map(({ machine }) => machine.node);
  const wanted = query.get("node");
  return here.includes(wanted) ? wanted : (here.find((node) => node === project.primary_node_id) ?? here[0] ?? null);
}
