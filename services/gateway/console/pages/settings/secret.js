// A secret that is shown this once, with the button that copies it.
import { html } from "../../app/html.js";
import { toast } from "../../app/parts/toast.js";

export function Secret({ title, text, children, onClose }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      toast("Copied");
    } catch {
      toast("The browser does not let the console copy: select the text", "fail");
    }
  };
  return html`<div class="panel secret" role="status"><div class="body stack">
    <div class="spread"><strong>${title}</strong><button type="button" class="small" onClick=${onClose}>I have it</button></div>
    <pre class="quoted" tabindex="0" aria-label=${title}>${text}</pre>
    <p class="row">${navigator.clipboard && html`<button type="button" class="small" onClick=${copy}>Copy</button>`}<span class="dim">${children}</span></p>
  </div></div>`;
}
