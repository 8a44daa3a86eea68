// What a list is narrowed by, all of it in the query of the address, and which of its rows are chosen.
import { html, useEffect, useRef, useState } from "../html.js";
import { setQuery } from "../router.js";
import { number } from "./text.js";

/** Milliseconds after the last letter at which a search begins. */
const TYPED = 250;

/** A text that narrows the list while it is typed. `options` are suggestions. */
export function Search({ name = "q", value, label, placeholder, options, type = "search" }) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  useEffect(() => {
    if (!timer.current) setText(value);
  }, [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const input = (event) => {
    const next = event.target.value;
    setText(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      timer.current = 0;
      setQuery({ [name]: next.trim() }, { replace: true });
    }, type === "date" ? 0 : TYPED);
  };
  const list = options && `list-of-${name}`;
  return html`<label class=${`field ${type === "search" && !options ? "grows" : ""}`}><span>${label}</span>
    <input type=${type} name=${name} value=${text} placeholder=${placeholder} list=${list} autocomplete="off" onInput=${input} />
    ${options && html`<datalist id=${list}>${options.map((one) => html`<option key=${one} value=${one} />`)}</datalist>`}
  </label>`;
}

/** The row of what narrows a list. */
export const Filters = ({ children }) => html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>${children}</form>`;

/** A choice that narrows the list: `options` are `[value, label]`. */
export const Pick = ({ name, value, label, options }) => html`<label class="field"><span>${label}</span>
  <select name=${name} value=${value} onChange=${(event) => setQuery({ [name]: event.target.value })}>
    ${options.map(([key, said]) => html`<option key=${key} value=${key}>${said}</option>`)}
  </select>
</label>`;

/** Return what was shown before while the next answer is on its way, so that a list does not blink at each letter. */
export function useKept(found) {
  const kept = useRef(found);
  if (found.data !== undefined || found.error) kept.current = found;
  return kept.current.data === undefined && !kept.current.error ? found : kept.current;
}

/** Which rows are chosen: `ids`, or with `all` everything that matches. It begins anew when `filter` changes. */
export function useChoice(filter) {
  const [choice, setChoice] = useState({ ids: [], all: false });
  useEffect(() => setChoice({ ids: [], all: false }), [filter]);
  return {
    ...choice,
    has: (id) => choice.all || choice.ids.includes(id),
    toggle: (id) => setChoice({ all: false, ids: choice.ids.includes(id) ? choice.ids.filter((one) => one !== id) : [...choice.ids, id] }),
    choose: (ids) => setChoice({ ids, all: false }),
    chooseAll: () => setChoice({ ids: [], all: true }),
    clear: () => setChoice({ ids: [], all: false }),
  };
}

/** Says how many rows there are and how many of them are chosen; `children` are what can be done with those. */
export function ChoiceBar({ choice, shown, total, matches, canAll, children }) {
  const chosen = choice.all ? total : choice.ids.length;
  return html`<div class="choice spread">
    <span class="row" role="status">${chosen ? html`<strong>${number(chosen)} selected</strong>` : matches}</span>
    <span class="row">
      ${!choice.all && shown.length > choice.ids.length &&
      html`<button type="button" class="small plain" onClick=${() => choice.choose(shown)}>Select ${shown.length === 1 ? "it" : `these ${number(shown.length)}`}</button>`}
      ${canAll && !choice.all && total > shown.length &&
      html`<button type="button" class="small plain" onClick=${choice.chooseAll}>Select all ${number(total)} that match</button>`}
      ${chosen > 0 && html`<button type="button" class="small plain" onClick=${choice.clear}>Clear</button>`}
      ${chosen > 0 && children}
    </span>
  </div>`;
}

/** Shows more rows of a list that has more. */
export const More = ({ found, onMore }) =>
  html`<p class="row more-rows"><button type="button" onClick=${onMore} disabled=${found.loading}>Show more</button></p>`;
