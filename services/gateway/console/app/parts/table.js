// Rows: one line each, cards below 600 px. A row that opens says so, by mouse and by keyboard.
import { html } from "../html.js";
import { Icon } from "./states.js";

/**
 * `columns`: `{key, label, cell(row), kind?: "number" | "main" | "actions", wide?: true}`; a `wide` one is hidden on
 * narrow screens. `detail(row)` is what an open row shows; which row is open (`open`, a key) belongs into the query.
 */
export function Table({ caption, columns, rows, keyOf, open, onToggle, detail, isNow }) {
  const shown = detail ? [{ key: "more", label: "" }, ...columns] : columns;
  return html`<table class="list">
    <caption class="unseen">${caption}</caption>
    <thead><tr>
      ${shown.map((one) => html`<th key=${one.key} scope="col" class=${style(one)}>
        ${one.label || html`<span class="unseen">${one.key === "more" ? "Details" : one.key}</span>`}
      </th>`)}
    </tr></thead>
    <tbody>${rows.map((row) => {
      const key = keyOf(row);
      const isOpen = detail && String(open ?? "") === String(key);
      return html`<${Row} key=${key} ...${{ row, id: key, columns, detail, isOpen, onToggle, width: shown.length }}
        current=${isNow?.(row)} />`;
    })}</tbody>
  </table>`;
}

function Row({ row, id, columns, detail, isOpen, onToggle, width, current }) {
  const toggle = () => onToggle(isOpen ? null : id);
  const opens = (event) => detail && !event.target.closest("a, button, input, label, select, summary") && toggle();
  const name = `detail-${String(id).replace(/\W/g, "-")}`;
  return html`<tr class=${`${detail ? "opens" : ""} ${isOpen ? "open" : ""}`} onClick=${opens} aria-current=${current ? "true" : undefined}>
      ${detail && html`<td class="more">
        <button type="button" class="plain" aria-expanded=${String(Boolean(isOpen))} aria-controls=${name}
          aria-label=${`Details of ${id}`} onClick=${toggle}><${Icon} name="more" /></button>
      </td>`}
      ${columns.map((one) => html`<td key=${one.key} class=${style(one)} data-label=${one.label}>${one.cell(row)}</td>`)}
    </tr>
    ${isOpen && html`<tr class="detail" id=${name}><td colspan=${width}>${detail(row)}</td></tr>`}`;
}

const style = (one) => [one.key === "more" ? "more" : "", one.kind ?? "", one.wide ? "wide" : ""].join(" ").trim();
