// Every machine, the projects, and what needs attention.
import { html } from "../app/html.js";
import { get } from "../app/api.js";
import { useResource } from "../app/store.js";
import { Shown } from "../app/parts/states.js";
import { Table } from "../app/parts/table.js";
import { number } from "../app/parts/text.js";
import { href } from "../app/router.js";

export const title = "Overview";

export default function Page() {
  const found = useResource((signal) => get("/api/membridge/projects", {}, { signal }), [], { events: ["node"] });
  const columns = [
    { key: "name", label: "Project", kind: "main", cell: (one) => html`<a href=${href("projects", [one.canonical_id])}>${one.name}</a>` },
    { key: "primary", label: "Primary", cell: (one) => one.primary_node_id ?? "none" },
    { key: "head", label: "Snapshot", kind: "number", cell: (one) => number(one.head_seq) },
  ];
  return html`<h1>Overview</h1>
    <${Shown} found=${found} what="The projects">
      ${(data) => html`<${Table} caption="Projects" columns=${columns} rows=${data.projects} keyOf=${(one) => one.canonical_id} />`}
    </${Shown}>`;
}
