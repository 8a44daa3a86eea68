// What differs between two states: counts by table, then the titles.
import { html } from "../html.js";
import { number, table, tables } from "./text.js";

const WORDS = { came: "new", went: "deleted", changed: "changed", kept: "kept" };
const SIGNS = { came: "+", went: "−", changed: "~", kept: "=" };
const KINDS = Object.keys(WORDS);

/** Return the counts of all tables in words: "12 new, 1 deleted"; empty without a change. */
export function summed(found, words = WORDS) {
  return KINDS.map((kind) => [kind, found.reduce((sum, one) => sum + (one[kind] ?? 0), 0)])
    .filter(([, sum]) => sum)
    .map(([kind, sum]) => `${number(sum)} ${words[kind]}`)
    .join(", ");
}

export const total = (found) => found.reduce((sum, one) => sum + one.came + one.went + one.changed, 0);

/** Counts by table and titles of a comparison: `tables`, `rows`, `listed_all`. */
export function Changes({ found, none = "Nothing differs.", words = WORDS }) {
  if (!found.tables.length) return html`<p class="dim">${none}</p>`;
  return html`<ul class="counts">
      ${found.tables.map((one) => html`<li key=${one.table}>
        <span class="strong">${table(one.table)}s</span>
        ${KINDS.filter((kind) => one[kind]).map((kind) => html`<span key=${kind} class=${`count ${kind}`}>${number(one[kind])} ${words[kind]}</span>`)}
      </li>`)}
    </ul>
    ${found.rows.length > 0 && html`<ul class="differing" tabindex="0" aria-label="Rows that differ">
      ${found.rows.map((row, index) => html`<li key=${index}>
        <span class=${`sign ${row.change}`} title=${words[row.change]}><span aria-hidden="true">${SIGNS[row.change]}</span><span class="unseen">${words[row.change]}</span></span>
        <span>${row.title || row.key.join(" · ") || "(no text)"}
          <span class="dim small"> ${table(row.table)}${row.columns.length ? `: ${row.columns.join(", ")}` : ""}</span></span>
      </li>`)}
      ${!found.listed_all && html`<li class="dim">… and more rows that are counted above</li>`}
    </ul>`}`;
}

/** Rows of a snapshot by table: "120 observations, 14 summaries". */
export const contents = (rows) =>
  Object.entries(rows).filter(([, count]) => count).map(([name, count]) => tables(name, count)).join(", ");
