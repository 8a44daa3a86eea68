// API keys: made once, listed with their last use, revoked.
import { html, useState } from "../../app/html.js";
import { get, post, remove } from "../../app/api.js";
import { session } from "../../app/session.js";
import { useResource } from "../../app/store.js";
import { ReviewButton } from "../../app/parts/review.js";
import { Badge, Empty, Shown } from "../../app/parts/states.js";
import { Table } from "../../app/parts/table.js";
import { Time } from "../../app/parts/time.js";
import { Secret } from "./secret.js";

const AT = "/api/v1/keys";
const ROLES = [["reader", "reader: sees"], ["operator", "operator: acts"], ["admin", "admin: manages"]];
const SCOPES = { tasks: "tasks", memory: "memory", agent: "agent", access: "invitations", keys: "API keys", metrics: "metrics" };
const DAYS = [["30", "30 days"], ["90", "90 days"], ["365", "a year"], ["", "for ever"]];
const NEW = { name: "", role: "operator", scopes: ["tasks", "memory"], days: "90" };

const stateOf = (key) => (key.revoked_at ? "revoked" : key.expires_at && new Date(key.expires_at) < Date.now() ? "expired" : "valid");

export function Keys() {
  const found = useResource((signal) => get(AT, {}, { signal }), [], { events: ["audit"] });
  const [form, setForm] = useState(NEW);
  const [issued, setIssued] = useState(null);
  const put = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const tick = (scope) => () => setForm({ ...form, scopes: form.scopes.includes(scope) ? form.scopes.filter((one) => one !== scope) : [...form.scopes, scope] });
  const isReady = form.name.trim() && form.scopes.length > 0;
  const columns = [
    { key: "name", label: "Key", kind: "main", by: (one) => one.name, cell: (one) => html`${one.name} <span class="dim mono small">${one.id}</span>` },
    { key: "role", label: "Role", by: (one) => one.role, cell: (one) => one.role },
    { key: "scopes", label: "Scopes", cell: (one) => (one.scopes.includes("*") ? "everything" : one.scopes.map((scope) => SCOPES[scope] ?? scope).join(", ")) },
    { key: "state", label: "State", by: stateOf, cell: (one) => html`<${Badge} kind=${{ valid: "ok", expired: "warn", revoked: "off" }[stateOf(one)]}>${stateOf(one)}</${Badge}>
        ${stateOf(one) === "valid" && one.expires_at && html` <span class="dim small">ends <${Time} at=${one.expires_at} style="until" /></span>`}` },
    { key: "used", label: "Last used", kind: "number", by: (one) => one.last_used_at, cell: (one) => html`<${Time} at=${one.last_used_at} />` },
    { key: "made", label: "Made", kind: "number", wide: true, by: (one) => one.created_at, cell: (one) => html`<${Time} at=${one.created_at} />` },
    { key: "actions", label: "", kind: "actions", cell: (one) => stateOf(one) !== "revoked" && html`<${ReviewButton} small label="revoke" isDanger verb=${`Revoke ${one.name}`}
        body=${() => html`<p><strong>${one.name}</strong> (${one.role} of ${one.scopes.join(", ")}) is refused within a second. Its sessions and streams end.</p>
          <p>${one.last_used_at ? html`It was last used <${Time} at=${one.last_used_at} />.` : "It was never used."}</p>
          ${one.id === session.value?.key_id && html`<p class="strong">This is the key that you are logged in with: you will be logged out.</p>`}`}
        act=${() => remove(`${AT}/${one.id}`)} done=${() => (found.reload(), `${one.name} is revoked`)} />` },
  ];
  return html`${issued && html`<${Secret} title=${`The key ${issued.key.name}`} text=${issued.secret} onClose=${() => setIssued(null)}>It is shown this once and stored nowhere.</${Secret}>`}
    <section class="panel" aria-label="New key"><header><h2>New key</h2></header>
      <form class="body stack" onSubmit=${(event) => event.preventDefault()}>
        <div class="filters bare">
          <label class="field grows"><span>Name</span><input name="name" value=${form.name} maxlength="64" autocomplete="off" placeholder="What it is for" onInput=${put("name")} /></label>
          <label class="field"><span>Role</span><select name="role" value=${form.role} onChange=${put("role")}>${ROLES.map(([name, said]) => html`<option key=${name} value=${name}>${said}</option>`)}</select></label>
          <label class="field"><span>Valid</span><select name="days" value=${form.days} onChange=${put("days")}>${DAYS.map(([days, said]) => html`<option key=${days} value=${days}>${said}</option>`)}</select></label>
        </div>
        <fieldset class="row"><legend>Scopes</legend>
          ${Object.entries(SCOPES).map(([scope, said]) => html`<label key=${scope} class="row tick"><input type="checkbox" checked=${form.scopes.includes(scope)} onChange=${tick(scope)} />${said}</label>`)}
        </fieldset>
        <p><${ReviewButton} label="create" disabled=${!isReady} title=${isReady ? undefined : "It needs a name and a scope"} verb="Create the key"
          body=${() => html`<dl class="facts"><dt>Name</dt><dd>${form.name}</dd><dt>May</dt><dd>${form.role} of ${form.scopes.map((one) => SCOPES[one]).join(", ")}</dd>
            <dt>Valid</dt><dd>${DAYS.find(([days]) => days === form.days)[1]}</dd></dl><p class="dim">The key is shown once, after this.</p>`}
          act=${() => post(AT, { name: form.name.trim(), role: form.role, scopes: form.scopes, ...(form.days && { days: Number(form.days) }) })}
          done=${(made) => (setIssued(made), setForm(NEW), found.reload(), `${made.key.name} is made`)} /></p>
      </form></section>
    <section class="panel" aria-label="Keys"><header><h2>Keys</h2></header>
      <${Shown} found=${found} what="The keys">
        ${(data) => (data.keys.length ? html`<${Table} caption="API keys" columns=${columns} rows=${data.keys} keyOf=${(one) => one.id} />` : html`<${Empty} title="No key yet" />`)}
      </${Shown}></section>`;
}
