// Rows: one line each, cards below 600 px. A row that opens says so, by mouse and by keyboard; a column sorts by its head.
import { html } from "../html.js";
import { place, setQuery } from "../router.js";
import { Icon } from "./states.js";

/** The field of the query that says how a table is sorted: a key of a column, after "-" the largest first. */
const SORT = "sort";

/**
 * `columns`: `{key, label, cell(row), kind?: "number" | "main" | "actions", wide?: true, by?}`; a `wide` one is hidden on
 * narrow screens. A column with `by` sorts: by the value that `by(row)` returns, or, where it is a text, in the gateway.
 * `detail(row)` is what an open row shows; which row is open (`open`, a key) and how it is sorted (`sort`, where a page
 * has several tables) belong into the query.
 */
export function Table({ caption, columns, rows, keyOf, open, onToggle, detail, isNow, sort = SORT }) {
  const shown = detail ? [{ key: "more", label: "" }, ...columns] : columns;
  const order = orderOf(columns, place.value.query.get(sort));
  const put = (wanted) => setQuery({ [sort]: wanted }, { replace: true });
  const able = columns.filter((one) => one.by);
  return html`${able.length > 0 && rows.length > 2 && html`<p class="sorter"><span aria-hidden="true">Sort by</span>
      <select aria-label="Sort by" value=${order.said} onChange=${(event) => put(event.target.value)}><option value="">default</option>
        ${able.flatMap((one) => directions(one).map(([value, arrow]) => html`<option key=${value} value=${value}>${one.label} ${arrow}</option>`))}</select></p>`}
    <table class="list">
    <caption class="unseen">${caption}</caption>
    <thead><tr>
      ${shown.map((one) => html`<th key=${one.key} scope="col" class=${style(one)}
        aria-sort=${one.by && (one === order.column ? (order.sign > 0 ? "ascending" : "descending") : "none")}>
        ${one.by ? html`<${Head} column=${one} order=${order} put=${put} />` : one.label || html`<span class="unseen">${one.key === "more" ? "Details" : one.key}</span>`}
      </th>`)}
    </tr></thead>
    <tbody>${inOrder(rows, order).map((row) => {
      const key = keyOf(row);
      const isOpen = detail && String(open ?? "") === String(key);
      return html`<${Row} key=${key} ...${{ row, id: key, columns, detail, isOpen, onToggle, width: shown.length }}
        current=${isNow?.(row)} />`;
    })}</tbody>
  </table>`;
}

/** The head of a column that sorts: one way, the other way, and as it was. */
function Head({ column, order, put }) {
  const ways = [...directions(column).map(([value]) => value), ""];
  const sign = column === order.column ? order.sign : 0;
  return html`<button type="button" class="plain sorts" onClick=${() => put(ways[(ways.indexOf(sign ? order.said : "") + 1) % ways.length])}>
    ${column.label}<span class="arrow" aria-hidden="true">${sign ? (sign > 0 ? "↑" : "↓") : ""}</span></button>`;
}

/** Both ways to sort by a column as the query has them; numbers and times begin with the largest. */
function directions({ key, kind }) {
  const both = [[key, "↑"], [`-${key}`, "↓"]];
  return kind === "number" ? both.reverse() : both;
}

/** Return `{column, sign, said}` of a sort in a query; without a column for what is no sort of these. */
export function orderOf(columns, said) {
  const sign = said?.startsWith("-") ? -1 : 1;
  const column = columns.find((one) => one.by && one.key === said?.slice(sign < 0 ? 1 : 0));
  return { column, sign, said: column ? said : "" };
}

/** Rows in order; those without a value come last, either way. */
function inOrder(rows, { column, sign }) {
  if (typeof column?.by !== "function") return rows;
  const isNone = (value) => value === null || value === undefined || value === "";
  return rows.map((row) => [column.by(row), row]).sort(([one], [other]) => {
    if (isNone(one) || isNone(other)) return isNone(one) - isNone(other);
    return sign * (typeof one === "string" ? one.localeCompare(other, undefined, { numeric: true }) : one - other);
  }).map(([, row]) => row);
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
