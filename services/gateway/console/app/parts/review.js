// Every button that changes something: it shows counts and titles of what will change first, and acts when told to.
import { html, signal, useEffect, useRef } from "../html.js";
import { Failure, Loading } from "./states.js";
import { toast } from "./toast.js";

/** The open dialog: `{options, step, found, error}`. */
const open = signal(null);

/**
 * Open a dialog that shows what will change and does it when told to.
 *
 *     review({
 *       title: "Restore snapshot 12",
 *       load: (signal) => post(…preview…),            // may be left out: then `body` gets undefined
 *       body: (found) => html`…counts and titles…`,
 *       verb: (found) => "Restore 14 rows",            // or a text; null when there is nothing to do
 *       act: (found) => post(…apply…),
 *       done: (result) => "Restored as snapshot 15",   // the notice; or null
 *       isDanger: true,
 *       back: "Keep it",                             // the button that does nothing; "Cancel" by itself
 *     });
 */
export function review(options) {
  open.value = { options, step: "loading", found: undefined, error: null, opener: document.activeElement };
  load();
}

async function load() {
  const mine = open.peek();
  const { options } = mine;
  const move = (fields) => open.peek()?.options === options && (open.value = { ...open.peek(), ...fields });
  if (!options.load) return move({ step: "ready" });
  const aborts = new AbortController();
  move({ step: "loading", error: null, aborts });
  try {
    const found = await options.load(aborts.signal);
    move({ step: "ready", found });
  } catch (error) {
    if (!aborts.signal.aborted) move({ step: "failed", error });
  }
}

async function act() {
  const { options, found, step } = open.peek();
  if (step !== "ready") return;
  const move = (fields) => open.peek()?.options === options && (open.value = { ...open.peek(), ...fields });
  move({ step: "acting", error: null });
  try {
    const result = await options.act(found);
    const said = typeof options.done === "function" ? options.done(result, found) : options.done;
    if (open.peek()?.options === options) close();
    if (said) toast(said);
  } catch (error) {
    if (open.peek()?.options === options) move({ step: "ready", error });
    else toast(`${options.title}: ${error.detail || error.message}`, "fail");
  }
}

function close() {
  const { aborts, opener } = open.peek() ?? {};
  aborts?.abort();
  open.value = null;
  // The page is inert until the dialog is gone.
  requestAnimationFrame(() => opener?.focus?.());
}

export function ReviewDialog() {
  const shown = open.value;
  const dialog = useRef(null);
  useEffect(() => {
    if (shown && !dialog.current.open) dialog.current.showModal();
  }, [shown === null]);
  if (!shown) return null;
  const { options, step, found, error } = shown;
  const isReady = step === "ready" || step === "acting";
  const verb = isReady ? (typeof options.verb === "function" ? options.verb(found) : options.verb) : null;
  return html`<dialog
    ref=${dialog}
    class="review"
    aria-labelledby="review-title"
    onCancel=${(event) => (event.preventDefault(), close())}
    onClick=${(event) => event.target === dialog.current && step !== "acting" && close()}
  >
    <form method="dialog" onSubmit=${(event) => (event.preventDefault(), act())}>
      <h2 id="review-title" tabindex="-1" autofocus>${options.title}</h2>
      <div class="review-body" aria-busy=${step === "loading"}>
        ${step === "loading" && html`<${Loading} lines=${4} label="Looking at what will change" />`}
        ${step === "failed" && html`<${Failure} error=${error} retry=${load} what="It cannot be reviewed" />`}
        ${isReady && options.body?.(found)}
        ${isReady && error && html`<${Failure} error=${error} />`}
      </div>
      <div class="review-buttons">
        <button type="button" onClick=${close}>${verb ? (options.back ?? "Cancel") : "Close"}</button>
        ${verb &&
        html`<button type="submit" class=${options.isDanger ? "danger" : "primary"} disabled=${step === "acting"}>
          ${step === "acting" ? "Working…" : verb}
        </button>`}
      </div>
    </form>
  </dialog>`;
}

/** A button that opens the dialog under a `heading`; its label is said as "Review and LABEL". */
export function ReviewButton({ label, heading, small = false, disabled = false, title, ...options }) {
  return html`<button
    type="button"
    class=${small ? "small" : ""}
    disabled=${disabled}
    title=${title}
    onClick=${() => review({ title: heading ?? label[0].toUpperCase() + label.slice(1), ...options })}
  >
    Review and ${label}
  </button>`;
}
