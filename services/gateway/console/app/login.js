// The login: an API key becomes a session, which the gateway keeps in a sealed cookie. The key itself is not kept.
import { html, useState } from "./html.js";
import { logIn } from "./api.js";
import { session } from "./session.js";
import { sessionChanged } from "./events.js";
import { Failure } from "./parts/states.js";

export function Login() {
  const [key, setKey] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    if (!key.trim() || isBusy) return;
    setBusy(true);
    setError(null);
    try {
      session.value = await logIn(key.trim());
      sessionChanged();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<main class="login" id="main">
    <form onSubmit=${submit}>
      <h1>Membridge</h1>
      <p class="dim">One memory on several machines. Log in with an API key.</p>
      <label for="key">API key</label>
      <input id="key" name="key" type="password" autocomplete="current-password" autofocus spellcheck="false"
        placeholder="mbk_…" value=${key} onInput=${(event) => setKey(event.target.value)} aria-describedby="key-help" />
      ${error && html`<${Failure} error=${error} what="Not logged in" />`}
      <button type="submit" class="primary" disabled=${isBusy || !key.trim()}>${isBusy ? "Logging in…" : "Log in"}</button>
      <p class="dim small" id="key-help">A machine of yours makes a key:
        <code>membridge api-key new console</code></p>
    </form>
  </main>`;
}
