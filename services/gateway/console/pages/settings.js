// Settings: the server that requests go on to, API keys, invitations, and what is set where.
import { html } from "../app/html.js";
import { href } from "../app/router.js";
import { may, session } from "../app/session.js";
import { Empty } from "../app/parts/states.js";
import { Effective } from "./settings/effective.js";
import { Invitations } from "./settings/invitations.js";
import { Keys } from "./settings/keys.js";
import { Proxy } from "./settings/proxy.js";

export const title = "Settings";

/** Tabs: label, content, and the scope in which its caller must be an administrator. */
const TABS = {
  "": ["Server", Proxy, "tasks"],
  keys: ["API keys", Keys, "keys"],
  invitations: ["Invitations", Invitations, "access"],
  effective: ["Effective", Effective, "tasks"],
};

export default function Page({ params }) {
  const [tab = ""] = params.path;
  const [label, Part, scope] = TABS[tab] ?? [];
  return html`<h1>Settings</h1>
    <nav class="tabs" aria-label="Parts of this page">${Object.entries(TABS).map(
      ([name, [said]]) => html`<a key=${name} href=${href("settings", [name])} aria-current=${name === tab ? "page" : undefined}>${said}</a>`,
    )}</nav>
    ${!Part
      ? html`<${Empty} title="There is no such part" />`
      : may(scope, "admin")
        ? html`<${Part} query=${params.query} />`
        : html`<section class="panel"><${Empty} title=${`${label}: your key may not see this`}>
            It needs an administrator's key with the scope <code>${scope}</code>. Make one where <code>membridge up</code> runs, then
            log in with it:<br /><code>membridge api-key new console --scope tasks --scope memory --scope keys --scope access</code>
            <br /><br /><button type="button" onClick=${() => (session.value = null)}>Log in with a key</button></${Empty}></section>`}`;
}
