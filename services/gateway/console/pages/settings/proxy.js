// The server that requests about projects are passed on to.
import { html, useEffect, useState } from "../../app/html.js";
import { get, post } from "../../app/api.js";
import { useResource } from "../../app/store.js";
import { ReviewButton } from "../../app/parts/review.js";
import { Badge, Failure, Shown } from "../../app/parts/states.js";
import { number } from "../../app/parts/text.js";

const AT = "/api/runtime";
const SOURCES = { console: "set here", environment: "set by MEMBRIDGE_SERVER_URL", none: "not set" };

export function Proxy() {
  const found = useResource((signal) => get(`${AT}/config`, {}, { signal }), [], { events: ["audit"] });
  return html`<section class="panel" aria-label="Server">
    <header><h2>Server</h2></header>
    <${Shown} found=${found} what="The server">${(data) => html`<${Form} key=${data.server_url} now=${data} reload=${found.reload} />`}</${Shown}>
  </section>`;
}

function Form({ now, reload }) {
  const [url, setUrl] = useState(now.server_url);
  const [key, setKey] = useState("");
  const [test, setTest] = useState({});
  const run = async () => {
    setTest({ isRunning: true });
    try {
      setTest({ said: await post(`${AT}/test-connection`) });
    } catch (error) {
      setTest({ error });
    }
    reload();
  };
  const isChanged = url.trim().replace(/\/$/, "") !== now.server_url || key !== "";
  useEffect(() => setTest({}), [url, key]);
  return html`<form class="body stack narrow" onSubmit=${(event) => event.preventDefault()}>
    <p class="dim">This gateway answers about projects itself, or passes those requests on to another Membridge server.</p>
    <label class="field"><span>Address of the other server</span>
      <input name="server_url" type="url" value=${url} placeholder="None: this gateway answers" onInput=${(event) => setUrl(event.target.value)} /></label>
    <label class="field"><span>Its administrator's key</span>
      <input name="admin_key" type="password" value=${key} autocomplete="off" placeholder=${now.admin_key ? `Kept: ${now.admin_key}` : "None"} onInput=${(event) => setKey(event.target.value)} /></label>
    <p class="row">
      <button type="button" onClick=${run} disabled=${test.isRunning || isChanged || !now.server_url} title=${isChanged ? "Save first: the saved address is tested" : undefined}>${test.isRunning ? "Testing…" : "Test the connection"}</button>
      <${ReviewButton} label="save" disabled=${!isChanged} verb=${url.trim() ? "Save" : "Answer here"}
        body=${() => html`<dl class="facts">
            <dt>Now</dt><dd>${now.server_url || "this gateway answers"}</dd>
            <dt>Then</dt><dd>${url.trim() || "this gateway answers"}</dd>
            <dt>Key</dt><dd>${key ? "a new one" : url.trim() === now.server_url && now.admin_key ? `as before: ${now.admin_key}` : "none: a key is never sent to another server"}</dd>
          </dl><p class="dim">It is for everyone who uses this gateway.</p>`}
        act=${() => post(`${AT}/config`, { server_url: url.trim(), ...(key && { admin_key: key }) })}
        done=${() => (setKey(""), reload(), "Saved")} />
    </p>
    <div role="status">
      ${test.said && html`<p><${Badge} kind=${test.said.ok ? "ok" : "fail"}>${test.said.ok ? `Connected in ${number(Math.round(test.said.latency_ms))} ms` : "Not connected"}</${Badge}> ${!test.said.ok && test.said.detail}</p>`}
      ${test.error && html`<${Failure} error=${test.error} />`}
      ${!test.said && !test.error && html`<p class="dim small">${SOURCES[now.source] ?? now.source}${now.connection && `; last request: ${now.connection}`}</p>`}
    </div>
  </form>`;
}
