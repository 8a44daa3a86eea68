// The settings that apply where the gateway runs, each with where its value comes from.
import { html } from "../../app/html.js";
import { get } from "../../app/api.js";
import { useResource } from "../../app/store.js";
import { Filters, Pick, Search } from "../../app/parts/filters.js";
import { Badge, Empty, Shown } from "../../app/parts/states.js";
import { Table } from "../../app/parts/table.js";
import { count } from "../../app/parts/text.js";
import { setQuery } from "../../app/router.js";

export function Effective({ query }) {
  const found = useResource((signal) => get("/api/settings", {}, { signal }), []);
  const words = (query.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const origin = query.get("set") ?? "";
  const columns = [
    { key: "key", label: "Setting", kind: "main", by: (one) => one.key, cell: (one) => html`<span class="mono">${one.key}</span>` },
    { key: "value", label: "Value", cell: (one) => (one.value === "" ? html`<span class="dim">none</span>` : html`<span class="mono">${one.value}</span>${one.unit && ` ${one.unit}`}`) },
    { key: "origin", label: "From", by: (one) => one.origin, cell: (one) => (one.origin === "default" ? html`<span class="dim">default</span>` : html`<${Badge} kind="ok">${one.origin}</${Badge}>`) },
  ];
  return html`<section class="panel" aria-label="Effective settings">
    <${Shown} found=${found} what="The settings" lines=${8}>
      ${(data) => {
        const rows = data.settings.filter((one) => (!origin || (one.origin === "default") === (origin === "default")) &&
          words.every((word) => `${one.key} ${one.value} ${one.origin} ${one.env} ${one.meaning}`.toLowerCase().includes(word)));
        return html`<${Filters}>
            <${Search} value=${query.get("q") ?? ""} label="Search" placeholder="Name, value or meaning" />
            <${Pick} name="set" value=${origin} label="From" options=${[["", "Anywhere"], ["set", "Not default"], ["default", "Defaults"]]} />
          </${Filters}>
          <p class="choice dim">${count(rows.length, "setting")} of machine ${data.node}</p>
          ${data.warnings.map((text) => html`<p key=${text} class="body"><${Badge} kind="warn">Warning</${Badge}> ${text}</p>`)}
          ${rows.length
            ? html`<${Table} caption="Settings" columns=${columns} rows=${rows} keyOf=${(one) => one.key} open=${query.get("open")} onToggle=${(key) => setQuery({ open: key })}
                detail=${(one) => html`<p>${one.meaning}</p>${one.env && html`<p class="dim">Set it with <code>${one.env}</code>, or as <code>${one.key}</code> in config.toml.</p>`}`} />`
            : html`<${Empty} title="No setting matches" />`}`;
      }}
    </${Shown}>
  </section>`;
}
