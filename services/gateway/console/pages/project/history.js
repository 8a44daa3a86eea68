// The history of a memory: snapshots with size and rows over time, what differs between two, and going back to one.
import { html, useState } from "../../app/html.js";
import { address, get, ofProject, post } from "../../app/api.js";
import { setQuery } from "../../app/router.js";
import { may } from "../../app/session.js";
import { useResource } from "../../app/store.js";
import { Changes, contents, summed, total } from "../../app/parts/changes.js";
import { Chart } from "../../app/parts/chart.js";
import { ReviewButton } from "../../app/parts/review.js";
import { Badge, Empty, Shown } from "../../app/parts/states.js";
import { Table } from "../../app/parts/table.js";
import { bytes, count, number } from "../../app/parts/text.js";
import { Time, exact } from "../../app/parts/time.js";

/** Snapshots of one answer, rows that a preview names, milliseconds that work on a memory may take. */
const [PAGE, NAMED, LONG] = [100, 200, 600_000];

const sum = (rows) => Object.values(rows).reduce((all, one) => all + one, 0);

export function History({ project, query, node, nodes }) {
  const cid = project.canonical_id;
  const [pages, setPages] = useState(1);
  const found = useResource((signal) => load(cid, pages, signal), [cid, pages], {
    events: ["memory"],
    when: (data) => /snapshot/.test(data?.type ?? ""),
  });
  return html`<${Shown} found=${found} what="The history" lines=${8}>${(history) => history.records.length
    ? html`<${Snapshots} ...${{ cid, history, query, node, nodes, project }} more=${history.isMore && (() => setPages(pages + 1))} isLoading=${found.loading} />`
    : html`<div class="panel"><${Empty} title="No snapshot yet">The primary makes the first one when its memory changed.</${Empty}></div>`}</${Shown}>`;
}

async function load(cid, pages, signal) {
  const all = { records: [], changes: new Map(), tags: new Map(), isMore: true };
  for (let page = 0; page < pages && all.isMore; page += 1) {
    const before = all.records.at(-1)?.seq;
    const one = await get(ofProject(cid, "snapshots"), { limit: PAGE, before }, { signal, deadline: 40_000 });
    all.records.push(...one.records);
    one.changes.forEach((change) => all.changes.set(change.seq, change.tables));
    one.tags.forEach((tag) => all.tags.set(tag.seq, [...(all.tags.get(tag.seq) ?? []), tag.name]));
    all.isMore = one.records.length === PAGE;
  }
  return all;
}

function Snapshots({ cid, history, query, node, nodes, project, more, isLoading }) {
  const { records } = history;
  const open = query.get("open");
  const [older, newer] = [query.get("older"), query.get("newer")];
  const oldest = [...records].reverse();
  const at = Math.max(0, oldest.findIndex((one) => String(one.seq) === open));
  const columns = [
    { key: "seq", label: "Snapshot", kind: "main", by: (one) => one.seq, cell: (one) => html`${number(one.seq)} ${(history.tags.get(one.seq) ?? []).map((tag) => html`<${Badge} key=${tag} kind="tag">${tag}</${Badge}> `)}` },
    { key: "when", label: "Made", by: (one) => one.created_at, cell: (one) => html`<${Time} at=${one.created_at} />` },
    { key: "by", label: "By", by: (one) => one.node, cell: (one) => one.node },
    { key: "changes", label: "Change", cell: (one) => html`<span class="dim">${change(one, history.changes.get(one.seq))}</span>` },
    { key: "rows", label: "Rows", kind: "number", by: (one) => sum(one.rows), cell: (one) => number(sum(one.rows)) },
    { key: "size", label: "Sent", kind: "number", wide: true, by: (one) => one.object?.size_bytes, cell: (one) => (one.object ? bytes(one.object.size_bytes) : "–") },
    { key: "epoch", label: "Epoch", kind: "number", wide: true, by: (one) => one.epoch, cell: (one) => number(one.epoch) },
  ];
  return html`<section class="panel" aria-labelledby="growth">
      <header><h2 id="growth">Rows and size</h2><span class="dim small">${count(records.length, "snapshot")}${history.isMore ? ", the newest" : ""}</span></header>
      <${Chart} times=${oldest.map((one) => Date.parse(one.created_at))}
        series=${[
          { label: "Rows", values: oldest.map((one) => sum(one.rows)), format: short },
          { label: "Size", values: oldest.map((one) => one.size_bytes), format: bytes },
        ]}
        summary=${`From ${exact(oldest[0].created_at)} to ${exact(records[0].created_at)} the memory went from ${number(sum(oldest[0].rows))} to ${number(sum(records[0].rows))} rows and from ${bytes(oldest[0].size_bytes)} to ${bytes(records[0].size_bytes)}.`} />
      ${records.length > 1 && html`<div class="slider"><label for="past">Go back to</label>
        <input id="past" type="range" min="0" max=${records.length - 1} value=${open ? at : records.length - 1}
          aria-valuetext=${`Snapshot ${oldest[open ? at : records.length - 1].seq}`}
          onInput=${(event) => setQuery({ open: oldest[event.target.value].seq }, { replace: true })} />
        <span class="nowrap">snapshot ${number(oldest[open ? at : records.length - 1].seq)}</span></div>`}
    </section>
    ${older && newer && html`<${Difference} ...${{ cid, older, newer, node }} />`}
    <section class="panel" aria-labelledby="snapshots">
      <header><h2 id="snapshots">Snapshots</h2></header>
      <${Table} caption="Snapshots, newest first" columns=${columns} rows=${records} keyOf=${(one) => one.seq} open=${open}
        onToggle=${(seq) => setQuery({ open: seq })}
        detail=${(one) => html`<${Snapshot} ...${{ cid, record: one, newest: records[0], node, nodes, project }} tags=${history.tags.get(one.seq) ?? []} />`} />
      ${more && html`<p class="body"><button type="button" disabled=${isLoading} onClick=${more}>Show older ones</button></p>`}
    </section>`;
}

const short = (value) => (value >= 10_000 ? `${Math.round(value / 1000)}k` : number(Math.round(value)));

function change(record, tables) {
  if (record.kind === "empty") return "a new epoch, same rows";
  if (!tables) return record.kind === "full" ? "all rows" : "";
  const grown = Object.values(tables).reduce((all, one) => all + one, 0);
  return `${grown > 0 ? "+" : ""}${count(grown, "row")}`;
}

/** An open snapshot: what is in it, and what can be done with it. */
function Snapshot({ cid, record, newest, node, project, tags }) {
  const { seq } = record;
  const before = seq > 1 ? seq - 1 : 0;
  const compare = (older, newer) => () => setQuery({ older: String(older), newer: String(newer) });
  return html`<div class="stack"><dl class="facts small">
      <dt>In it</dt><dd>${contents(record.rows) || "nothing"}, ${bytes(record.size_bytes)}</dd>
      <dt>Made</dt><dd>${exact(record.created_at)} by ${record.node}, ${record.kind === "full" ? "with all rows" : record.kind === "delta" ? "with what changed" : "for a new epoch"}</dd>
      <dt>Content</dt><dd class="mono">${record.sha256}</dd>
    </dl>
    <p class="row">
      <button type="button" class="small" onClick=${compare(before, seq)}>${before ? `Compare with ${before}` : "Show its rows"}</button>
      ${seq !== newest.seq && html`<button type="button" class="small" onClick=${compare(seq, newest.seq)}>Compare with the newest</button>`}
      <${RestoreButton} ...${{ cid, record, newest, project }} />
      <${FileButton} ...${{ cid, record, node }} />
      <${TagButton} ...${{ cid, record, tags }} />
    </p></div>`;
}

function Difference({ cid, older, newer, node }) {
  const found = useResource((signal) => get(ofProject(cid, "diff"), { older, newer, node, limit: NAMED }, { signal, deadline: LONG }), [cid, older, newer]);
  return html`<section class="panel" aria-labelledby="difference" id="diff">
    <header><h2 id="difference">From ${older === "0" ? "nothing" : `snapshot ${older}`} to ${newer}</h2>
      <button type="button" class="small" onClick=${() => setQuery({ older: null, newer: null })}>Close</button></header>
    <div class="body stack"><${Shown} found=${found} what="The comparison">${(diff) => html`<${Changes} found=${diff} none="Both have the same rows." />`}</${Shown}></div>
  </section>`;
}

function RestoreButton({ cid, record, newest, project }) {
  if (!may("memory")) return null;
  const body = { state: String(record.seq), limit: NAMED };
  return html`<${ReviewButton} label="restore" small disabled=${!project.primary_node_id} heading=${`Restore snapshot ${record.seq} as the memory`}
    title=${project.primary_node_id ? "" : "Only a primary restores an earlier memory"}
    load=${(signal) => post(ofProject(cid, "restore"), body, { signal, deadline: LONG })}
    body=${(found) => html`<p>${found.commits
        ? `${project.primary_node_id} makes its memory what it was at snapshot ${record.seq}, and commits that as a new snapshot: every machine follows. Nothing of the history is lost.`
        : `${project.primary_node_id} makes its memory what it was at snapshot ${record.seq}.`}
        ${found.unsynced ? ` ${count(found.unsynced, "row")} that no snapshot has stay.` : ""}</p>
      <${Changes} found=${found} none="The memory is the same as now: nothing would change." />`}
    verb=${(found) => (total(found.tables) ? `Restore: ${summed(found.tables.map((one) => ({ ...one, kept: 0 })))}` : null)} isDanger
    act=${() => post(ofProject(cid, "restore"), { ...body, apply: true, limit: 0 }, { deadline: LONG })}
    done=${(result) => (result.commits ? `Snapshot ${record.seq} is restored as snapshot ${result.seq}` : `Snapshot ${record.seq} is restored`)} />`;
}

function FileButton({ cid, record, node }) {
  const [made, setMade] = useState(null);
  if (!may("memory")) return null;
  return html`<${ReviewButton} label="write to a file" small disabled=${!node} heading=${`Write snapshot ${record.seq} to a file`}
    body=${() => html`<p>A database with ${contents(record.rows)} is written on ${node}, into a folder of Membridge, and downloaded from there if you like. The memory stays as it is; the file is deleted after a day.</p>`}
    verb=${`Write ${bytes(record.size_bytes)} on ${node}`} act=${() => post(ofProject(cid, "extract"), { state: String(record.seq), node }, { deadline: LONG })}
    done=${(file) => (setMade({ ...file, node }), `Snapshot ${record.seq} is a file on ${node}`)} />
    ${made && html`<a class="button small" download href=${address(ofProject(cid, `extracted/${made.name}`), { node: made.node })}
      title=${`${made.path} on ${made.node}`}>Download ${bytes(made.size_bytes)}</a>`}`;
}

function TagButton({ cid, record, tags }) {
  const [name, setName] = useState("");
  if (!may("memory")) return null;
  const set = (event) => {
    event.preventDefault();
    if (name) event.target.querySelector("button").click();
  };
  return html`<form class="row tight" onSubmit=${set}><label class="unseen" for=${`tag-${record.seq}`}>Tag of snapshot ${record.seq}</label>
    <input id=${`tag-${record.seq}`} class="small" size="12" placeholder="tag" pattern="[A-Za-z0-9_-]{1,64}" value=${name} onInput=${(event) => setName(event.target.value)} />
    <${ReviewButton} label="tag" small disabled=${!/^[A-Za-z0-9_-]{1,64}$/.test(name)} heading=${`Tag snapshot ${record.seq} as ${name}`}
      body=${() => html`<p>Snapshot ${record.seq} is kept for as long as it has a tag${tags.length ? `; it has ${tags.join(", ")}` : ""}.</p>`}
      verb="Set 1 tag" act=${() => post(ofProject(cid, "tags"), { action: "set", name, state: String(record.seq) }, { deadline: 120_000 })} done=${`Snapshot ${record.seq} has the tag ${name}`} /></form>`;
}
