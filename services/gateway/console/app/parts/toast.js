// Short notices of what was done, and the live regions by which screen readers hear of changes.
import { html, signal } from "../html.js";

/** Milliseconds that a notice stays. */
const STAYS = 7_000;

const notices = signal([]);
const spoken = signal("");
let last = 0;

/** Show a notice. `kind`: ok or fail; one about a failure stays until it is closed. */
export function toast(text, kind = "ok") {
  const id = (last += 1);
  notices.value = [...notices.value.slice(-3), { id, text, kind }];
  if (kind === "ok") setTimeout(() => close(id), STAYS);
}

/** Copy a text, where the browser lets the console do it. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("The browser does not let the console copy: select the text", "fail");
  }
}

/** Have a screen reader say something that is only seen otherwise. */
export const announce = (text) => void (spoken.value = text);

function close(id) {
  notices.value = notices.value.filter((one) => one.id !== id);
}

export function Notices() {
  return html`<div class="unseen" aria-live="polite">${spoken.value}</div>
    <div class="notices" role="status" aria-live="polite">
      ${notices.value.map(
        (one) => html`<div key=${one.id} class=${`notice ${one.kind}`}>
          <span>${one.text}</span>
          <button type="button" class="plain" onClick=${() => close(one.id)} aria-label="Close the notice">×</button>
        </div>`,
      )}
    </div>`;
}
