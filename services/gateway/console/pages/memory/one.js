// One memory, at an address that is the same on each machine.
import { html } from "../../app/html.js";
import { get, ofProject } from "../../app/api.js";
import { go, href } from "../../app/router.js";
import { may } from "../../app/session.js";
import { projects, useResource } from "../../app/store.js";
import { Shown } from "../../app/parts/states.js";
import { Time } from "../../app/parts/time.js";
import { copy } from "../../app/parts/toast.js";
import { Forget, machine, Undo } from "./parts.js";

/** Columns that people read, in this order, with what they are called here. */
const TEXTS = {
  subtitle: "Subtitle", request: "Request", prompt_text: "Prompt", narrative: "Narrative", text: "Text", facts: "Facts",
  investigated: "Investigated", learned: "Learned", completed: "Completed", next_steps: "Next steps", notes: "Notes",
  concepts: "Concepts", files_read: "Files read", files_modified: "Files changed", files_edited: "Files edited",
};

export function One({ cid, name }) {
  const live = { events: ["memory"], when: (event) => event?.project === cid };
  const found = useResource((signal) => get(ofProject(cid, `memories/${encodeURIComponent(name)}`), {}, { signal }), [cid, name], live);
  const project = projects.value?.data?.projects.find((one) => one.canonical_id === cid);
  return html`<p><a href=${href("memory", [], { in: cid })}>All memories</a></p>
    <h1>${found.data?.memory.title || "Memory"}</h1>
    <${Undo} cid=${cid} done=${found.reload} />
    <${Shown} found=${found} what="This memory" lines=${6}>
      ${(data) => html`<${Content} ...${data} cid=${cid} project=${project} />`}
    </${Shown}>`;
}

function Content({ memory, fields, cid, project }) {
  const texts = Object.entries(TEXTS).filter(([column]) => fields[column] && fields[column] !== memory.title && fields[column] !== "[]");
  const rest = Object.entries(fields).filter(([column, value]) => !(column in TEXTS) && column !== "title" && value !== null && value !== "");
  const primary = project?.primary_node_id ?? project?.nodes[0];
  return html`<section class="panel">
    <header>
      <span class="row"><span class="badge">${memory.kind}</span>${memory.type && html`<span class="badge">${memory.type}</span>`}
        <span class="dim"><${Time} at=${memory.created_at} /></span></span>
      <span class="row">
        ${navigator.clipboard && html`<button type="button" onClick=${() => copy(location.href)}>Copy link</button>`}
        ${may("memory") && html`<${Forget} cid=${cid} wanted=${{ refs: [memory.ref] }} label="forget" nodes=${project?.nodes} done=${() => go(href("memory", [], { in: cid }))} />`}
      </span>
    </header>
    <div class="body stack reads">
      ${texts.map(([column, value]) => html`<div key=${column}><h2>${TEXTS[column]}</h2><${Value} text=${String(fields[column])} /></div>`)}
      ${texts.length === 0 && html`<p>${memory.title}</p>`}
      <details><summary>Where it is from</summary>
        <dl class="facts">
          <dt>Folder</dt><dd>${memory.project || "none"}</dd>
          <dt>Machine</dt><dd>${machine(memory.origin, primary)}</dd>
          <dt>Name</dt><dd><code>${memory.ref}</code></dd>
          ${rest.map(([column, value]) => html`<dt key=${`${column}-t`}>${column.replaceAll("_", " ")}</dt><dd key=${column}>${String(value)}</dd>`)}
        </dl>
      </details>
    </div>
  </section>`;
}

/** A text; a list that claude-mem keeps as JSON is shown as one. */
function Value({ text }) {
  let list = null;
  try {
    if (text.startsWith("[")) list = JSON.parse(text);
  } catch {
    // It only looked like one.
  }
  if (!Array.isArray(list)) return html`<p class="plain-text">${text}</p>`;
  return html`<ul class="bullets">${list.map((one, index) => html`<li key=${index}>${typeof one === "string" ? one : JSON.stringify(one)}</li>`)}</ul>`;
}
