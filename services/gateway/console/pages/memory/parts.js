// What the pages of memories share: kinds, machines, marked words, and the dialog that forgets.
import { html, signal } from "../../app/html.js";
import { ofProject, post } from "../../app/api.js";
import { ReviewButton } from "../../app/parts/review.js";
import { count, number } from "../../app/parts/text.js";

export const KINDS = [["", "Any kind"], ["observation", "Observations"], ["summary", "Summaries"], ["prompt", "Prompts"]];
const MANY = { observation: "observations", summary: "summaries", prompt: "prompts" };
/** Milliseconds that a change of a memory may take. */
const LONG = 600_000;

/** What was forgotten last, so that it can be undone: `{cid, seq, forgotten}`. */
export const undoable = signal(null);

/** The name of the machine that wrote a memory; one without an origin is of the machine that answered. */
export const machine = (origin, answering) => (origin || answering || "this machine").replace(/^membridge-/, "");

/** A piece of a list that claude-mem keeps as JSON, as a text. */
const plain = (letters) => letters.join("").replaceAll('", "', " · ").replace(/\["|"\]/g, "");

/** Return a text with the places between `marks` marked; those count characters, not the units of JavaScript. */
export function Marked({ text, marks }) {
  const letters = Array.from(text);
  const parts = [];
  let at = 0;
  for (let index = 0; index + 1 < marks.length; index += 2) {
    const [begin, end] = [marks[index], marks[index + 1]];
    parts.push(plain(letters.slice(at, begin)), html`<mark key=${begin}>${letters.slice(begin, end).join("")}</mark>`);
    at = end;
  }
  return [...parts, plain(letters.slice(at))];
}

const kinds = (counts) => Object.entries(counts).map(([kind, many]) => count(many, kind, MANY[kind])).join(", ");

/** The first of the memories that a dialog is about. */
const Titles = ({ memories, total }) => html`<ul class="titles" tabindex="0">
    ${memories.map((one) => html`<li key=${one.ref}><span class="dim small">${one.kind}</span> ${one.title || one.ref}</li>`)}
  </ul>
  ${total > memories.length && html`<p class="dim">and ${number(total - memories.length)} more</p>`}`;

/** The button that forgets on every machine; `wanted` names memories or has their filter. */
export function Forget({ cid, wanted, label, nodes, done }) {
  // What is written after the preview was not seen, so a filter ends where the preview was made.
  let until;
  const chosen = () => (wanted.filter ? { filter: { until, ...wanted.filter } } : wanted);
  const send = (apply, signal) => post(ofProject(cid, "forget"), { ...chosen(), apply }, { deadline: LONG, signal });
  const sum = (found) => Object.values(found.counts).reduce((all, one) => all + one, 0);
  return html`<${ReviewButton}
    label=${label}
    isDanger
    load=${(aborts) => ((until = new Date().toISOString()), send(false, aborts))}
    body=${(found) => html`<p><strong>${kinds(found.counts) || "Nothing"}</strong> will leave every machine of this
        memory${nodes?.length ? `: ${nodes.join(", ")}` : ""}. A machine that is away forgets when it is back.</p>
      <${Titles} memories=${found.memories} total=${sum(found)} />
      ${found.before_seq > 0 && html`<p class="dim">Snapshot ${number(found.before_seq)} still has it: you can restore that.</p>`}`}
    verb=${(found) => (sum(found) ? `Forget ${count(sum(found), "memory", "memories")}` : null)}
    act=${() => send(true)}
    done=${(result) => {
      undoable.value = { cid, seq: result.before_seq, forgotten: result.forgotten };
      done?.();
      const said = `Forgotten: ${count(result.forgotten, "memory", "memories")}`;
      return result.outcome === "proposed" ? `${said}. The primary takes it over next.` : said;
    }}
  />`;
}

/** Says what was forgotten last, with the button that brings it back. */
export function Undo({ cid, done }) {
  const last = undoable.value;
  if (!last || last.cid !== cid || !last.seq) return null;
  const send = (apply, signal) => post(ofProject(cid, "restore"), { state: String(last.seq), apply, limit: 20 }, { deadline: LONG, signal });
  const sum = (found, field) => found.tables.reduce((all, one) => all + one[field], 0);
  const changes = (found) => sum(found, "came") + sum(found, "changed") + sum(found, "went");
  return html`<div class="panel undo"><div class="body spread">
    <span>${count(last.forgotten, "memory", "memories")} forgotten. Snapshot ${number(last.seq)} has what was there before.</span>
    <span class="row">
      <${ReviewButton}
        label=${`restore snapshot ${number(last.seq)}`}
        load=${(aborts) => send(false, aborts)}
        body=${(found) => html`<p>The memory becomes that of snapshot ${number(found.state_seq)}, on every
            machine: <strong>${number(sum(found, "came"))} come back, ${number(sum(found, "changed"))} change, ${number(sum(found, "went"))} go</strong>.
            ${" "}What was never in a snapshot stays.</p>
          <ul class="titles" tabindex="0">${found.rows.map((one, index) => html`<li key=${index}><span class="dim small">${one.change}</span> ${one.title || one.table}</li>`)}</ul>`}
        verb=${(found) => (changes(found) ? `Restore ${count(changes(found), "row")}` : null)}
        act=${() => send(true)}
        done=${(found) => {
          undoable.value = null;
          done?.();
          return `Restored: ${count(found.inserted, "memory", "memories")} came back`;
        }}
      />
      <button type="button" class="plain" aria-label="Close" onClick=${() => (undoable.value = null)}>×</button>
    </span>
  </div></div>`;
}
