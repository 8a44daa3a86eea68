// Invitations: a line lets one machine join, once; each is listed with who used it, and can be revoked.
import { html, useState } from "../../app/html.js";
import { get, post, remove } from "../../app/api.js";
import { projects, useResource } from "../../app/store.js";
import { ReviewButton } from "../../app/parts/review.js";
import { Badge, Empty, Failure, Shown } from "../../app/parts/states.js";
import { Table } from "../../app/parts/table.js";
import { asker } from "../../app/parts/text.js";
import { exact, Time } from "../../app/parts/time.js";
import { Secret } from "./secret.js";

const AT = "/api/invitations";
const EXPIRY = [["600", "10 minutes"], ["3600", "1 hour"], ["86400", "1 day"], ["604800", "1 week"], ["exact", "a time of mine"]];
const KINDS = { open: "ok", used: "off", expired: "off", revoked: "off" };
const NEW = { note: "", node: "", project: "", expires_seconds: "3600", until: "" };
/** Seconds that an invitation may be open. */
const [LEAST, MOST] = [60, 604_800];

export function Invitations() {
  const found = useResource((signal) => get(AT, {}, { signal }), [], { events: ["audit", "node"] });
  const [form, setForm] = useState(NEW);
  const [made, setMade] = useState(null);
  const put = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const names = (projects.value?.data?.projects ?? []).map((one) => one.name);
  const isExact = form.expires_seconds === "exact";
  const seconds = isExact ? Math.floor((new Date(form.until) - Date.now()) / 1000) : Number(form.expires_seconds);
  const isReady = seconds >= LEAST && seconds <= MOST;
  const life = isExact ? html`until ${isReady && exact(form.until)}` : `within ${EXPIRY.find(([key]) => key === form.expires_seconds)[1]}`;
  const request = () => ({
    note: form.note.trim(), expires_seconds: seconds,
    ...(form.node.trim() && { node: form.node.trim() }), ...(form.project && { projects: [form.project] }),
  });
  const columns = [
    { key: "note", label: "For", kind: "main", by: (one) => one.note || one.node, cell: (one) => one.note || one.node || html`<span class="dim">no note</span>` },
    { key: "state", label: "State", by: (one) => one.state, cell: (one) => html`<${Badge} kind=${KINDS[one.state]}>${one.state}</${Badge}>` },
    { key: "used", label: "Used by", by: (one) => one.used_by, cell: (one) => (one.used_by ? html`${one.used_by} <span class="dim small"><${Time} at=${one.used_at} /></span>` : html`<span class="dim">${one.node ? `only for ${one.node}` : "nobody"}</span>`) },
    { key: "projects", label: "Memories", wide: true, cell: (one) => one.projects.join(", ") },
    { key: "by", label: "Made by", wide: true, cell: (one) => asker(one.created_by) },
    { key: "expires", label: "Expires", kind: "number", by: (one) => one.expires_at, cell: (one) => html`<${Time} at=${one.expires_at} style=${one.state === "open" ? "until" : "auto"} />` },
    { key: "actions", label: "", kind: "actions", cell: (one) => one.state === "open" && html`<${ReviewButton} small label="revoke" isDanger verb="Revoke the invitation"
        body=${() => html`<p>Nobody can join with the invitation <strong>${one.note || one.id}</strong> any more. Nobody has used it yet.</p>`}
        act=${() => remove(`${AT}/${one.id}`)} done=${() => (found.reload(), "The invitation is revoked")} />` },
  ];
  if (found.error && found.data === undefined) return html`<section class="panel"><${Failure} error=${found.error} retry=${found.reload} /></section>`;
  return html`${made && html`<${Secret} title=${`Run this on the new machine, until ${exact(made.expires_at)}`} text=${`membridge join ${made.line}`} onClose=${() => setMade(null)}>
      Whoever has this line can join, once. It is shown this once.</${Secret}>`}
    <section class="panel" aria-label="Invite a machine"><header><h2>Invite a machine</h2></header>
      <form class="body stack" onSubmit=${(event) => event.preventDefault()}>
        <div class="filters bare">
          <label class="field grows"><span>Note</span><input name="note" value=${form.note} maxlength="200" autocomplete="off" placeholder="Which machine it is for" onInput=${put("note")} /></label>
          <label class="field"><span>Only for the name</span><input name="node" value=${form.node} autocomplete="off" placeholder="Any name" onInput=${put("node")} /></label>
          ${names.length > 1 && html`<label class="field"><span>Memory</span><select name="project" value=${form.project} onChange=${put("project")}>
            <option value="">All</option>${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>`}
          <label class="field"><span>Expires in</span><select name="expires_seconds" value=${form.expires_seconds} onChange=${put("expires_seconds")}>
            ${EXPIRY.map(([key, said]) => html`<option key=${key} value=${key}>${said}</option>`)}</select></label>
          ${isExact && html`<label class="field"><span>Until</span><input name="until" type="datetime-local" value=${form.until} onInput=${put("until")} /></label>`}
        </div>
        <p><${ReviewButton} label="invite" disabled=${!isReady} title=${isReady ? undefined : "The time must be between a minute and a week from now"} verb="Make the invitation"
          body=${() => html`<p>One machine${form.node.trim() ? html` called <strong>${form.node.trim()}</strong>` : ""} may join <strong>${life}</strong>. It
            gets <strong>${form.project || (names.length > 1 ? `all memories: ${names.join(", ")}` : "the memory")}</strong>, may write to it and run tasks.</p>`}
          act=${() => post(AT, request())} done=${(one) => (setMade(one), setForm(NEW), found.reload(), "The invitation is made")} /></p>
      </form></section>
    <section class="panel" aria-label="Invitations"><header><h2>Invitations</h2></header>
      <${Shown} found=${found} what="The invitations">
        ${(data) => (data.invitations.length ? html`<${Table} caption="Invitations" columns=${columns} rows=${data.invitations} keyOf=${(one) => one.id} />` : html`<${Empty} title="No invitation yet" />`)}
      </${Shown}></section>`;
}
