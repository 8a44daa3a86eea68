// A secret that is shown this once, with the button that copies it.
import { html } from "../../app/html.js";
import { copy } from "../../app/parts/toast.js";

export function Secret({ title, text, children, onClose }) {
  return html`<div class="panel secret" role="status"><div class="body stack">
    <div class="spread"><strong>${title}</strong><button type="button" class="small" onClick=${onClose}>I have it</button></div>
    <pre class="quoted" tabindex="0" aria-label=${title}>${text}</pre>
    <p class="row">${navigator.clipboard && html`<button type="button" class="small" onClick=${() => copy(text)}>Copy</button>`}<span class="dim">${children}</span></p>
  </div></div>`;
}
