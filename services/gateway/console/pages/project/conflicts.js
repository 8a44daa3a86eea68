// Rows that two machines changed differently, side by side; and what a machine could not merge.
import { html } from "../../app/html.js";
import { get, ofProject, post } from "../../app/api.js";
import { setQuery } from "../../app/router.js";
import { may } from "../../app/session.js";
import { useResource } from "../../app/store.js";
import { ReviewButton } from "../../app/parts/review.js";
import { Badge, Empty, Shown } from "../../app/parts/states.js";
import { Table } from "../../app/parts/table.js";
import { table } from "../../app/parts/text.js";
import { Time } from "../../app/parts/time.js";
import { OfMachine } from "./now.js";

const TITLES = ["title", "request", "prompt_text", "custom_title", "user_prompt", "subtitle", "narrative", "text"];

const titled = (conflict) => {
  const row = conflict.kept.row ?? conflict.lost.row ?? {};
  const found = TITLES.map((name) => row[name]).find((value) => typeof value === "string" && value.trim());
  return found ?? conflict.key.join(" · ");
};

export function Conflicts({ project, node, nodes, query }) {
  const cid = project.canonical_id;
  const found = useResource((signal) => get(ofProject(cid, "conflicts"), { node }, { signal }), [cid, node, project.conflicts]);
  const columns = [
    { key: "title", label: "Row", kind: "main", by: titled, cell: (one) => titled(one) },
    { key: "table", label: "Kind", by: (one) => one.table, cell: (one) => table(one.table) },
    { key: "kept", label: "Kept", cell: (one) => side(one.kept, node) },
    { key: "lost", label: "Set beside", cell: (one) => side(one.lost, node) },
    { key: "at", label: "When", by: (one) => one.at, cell: (one) => html`<${Time} at=${one.at} />` },
  ];
  return html`<${OfMachine} node=${node} nodes=${nodes} />
    ${node && html`<section class="panel" aria-label="Conflicts"><${Shown} found=${found} what="Conflicts">${({ conflicts }) => conflicts.length
      ? html`<${Table} caption="Conflicts" columns=${columns} rows=${conflicts} keyOf=${(one) => one.id} open=${query.get("open")}
          onToggle=${(id) => setQuery({ open: id })} detail=${(one) => html`<${Sides} conflict=${one} node=${node} />`} />`
      : html`<${Empty} title="No conflict">When two machines change the same row, the newer version stays and the other one is kept here.</${Empty}>`}</${Shown}></section>`}`;
}

/** Which machine a version is of: its own is "ours" in the journal of the one that is asked. */
const from = ({ origin }, node) => (origin === "ours" ? node : origin || "unknown");
const side = (one, node) => html`${from(one, node)}${one.row === null && html` <span class="dim">(deleted)</span>`}`;

/** Both versions, one column under the other's name; what differs is marked. */
function Sides({ conflict, node }) {
  const { kept, lost } = conflict;
  const names = [...new Set([...Object.keys(kept.row ?? {}), ...Object.keys(lost.row ?? {})])];
  const differs = (name) => JSON.stringify(kept.row?.[name]) !== JSON.stringify(lost.row?.[name]);
  const shown = names.filter(differs);
  const cell = (row, name) => (row === null ? html`<span class="dim">deleted</span>` : row[name] === null || row[name] === undefined ? html`<span class="dim">empty</span>` : String(row[name]));
  return html`<div class="sides" role="table" aria-label="Both versions">
    <div role="row" class="side head"><span role="columnheader">Column</span><span role="columnheader">Kept: ${from(kept, node)}</span><span role="columnheader">Set beside: ${from(lost, node)}</span></div>
    ${shown.map((name) => html`<div role="row" class="side" key=${name}><span role="rowheader" class="dim">${name}</span>
      <span role="cell" class="kept">${cell(kept.row, name)}</span><span role="cell" class="lost">${cell(lost.row, name)}</span></div>`)}
    <p class="dim small">${names.length - shown.length} further columns are the same.</p></div>`;
}

export function Quarantine({ project, node, nodes, query }) {
  const cid = project.canonical_id;
  const ask = (body, options) => post(ofProject(cid, "quarantine"), { node, ...body }, options);
  const found = useResource((signal) => ask({ action: "list" }, { signal }), [cid, node, project.quarantined]);
  const act = (action, verb, said, says) => (item) => may("memory") && html`<${ReviewButton} label=${action} small heading=${`${verb} 1 item`}
    body=${() => html`<p>${said}</p><dl class="facts"><dt>Item</dt><dd>${item.subject}</dd><dt>Reason</dt><dd>${item.reason}</dd></dl>`}
    verb=${`${verb} 1 item`} isDanger=${action === "drop"} act=${() => ask({ action, id: item.id }, { deadline: 120_000 })} done=${(result) => (found.reload(), says)} />`;
  const retry = act("retry", "Try again", "It is merged once more, without the bound on how much may shrink.", "Tried again");
  const drop = act("drop", "Drop", "It is deleted here and no longer tried. The machine that sent it still has it.", "Dropped");
  const columns = [
    { key: "subject", label: "Item", kind: "main", by: (one) => one.subject, cell: (one) => one.subject },
    { key: "kind", label: "Kind", by: (one) => one.kind, cell: (one) => one.kind },
    { key: "reason", label: "Reason", cell: (one) => one.reason },
    { key: "tries", label: "Tries", kind: "number", by: (one) => one.attempts, cell: (one) => one.attempts },
    { key: "when", label: "Since", by: (one) => one.created_at, cell: (one) => html`<${Time} at=${one.created_at} />` },
    { key: "actions", label: "", kind: "actions", cell: (one) => html`<span class="row end">${retry(one)} ${drop(one)}</span>` },
  ];
  return html`<${OfMachine} node=${node} nodes=${nodes} />
    ${node && html`<section class="panel" aria-label="Set aside"><${Shown} found=${found} what="What was set aside">${({ items }) => items.length
      ? html`<${Table} caption="Items that could not be merged" columns=${columns} rows=${items} keyOf=${(one) => one.id} />`
      : html`<${Empty} title="Nothing was set aside">What a machine cannot merge is kept here, with the reason.</${Empty}>`}</${Shown}></section>`}`;
}
