// A new task. What is typed stays in the form until it is submitted.
import { html, useState } from "../../app/html.js";
import { get, post } from "../../app/api.js";
import { go, href } from "../../app/router.js";
import { useResource } from "../../app/store.js";
import { ReviewButton } from "../../app/parts/review.js";
import { count } from "../../app/parts/text.js";
import { AT } from "./parts.js";

const NEW = { agent_slug: "", prompt: "", context_id: "", desired_format: "text", priority: "5", max_attempts: "3", timeout_sec: "120", labels: "", context_hints: "" };

/** A key of this form: the same task is not submitted twice when an answer is lost. */
const newKey = () => `console-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
const words = (text) => text.split(/[\s,]+/).filter(Boolean);

function specOf(form, key) {
  const spec = {
    agent_slug: form.agent_slug.trim(), prompt: form.prompt, desired_format: form.desired_format, priority: Number(form.priority),
    max_attempts: Number(form.max_attempts), policy: { timeout_sec: Number(form.timeout_sec) }, labels: words(form.labels),
    context_hints: form.context_hints.split("\n").map((one) => one.trim()).filter(Boolean), idempotency_key: key,
  };
  if (form.context_id.trim()) spec.context_id = form.context_id.trim();
  return spec;
}

export function Submit({ query }) {
  const [form, setForm] = useState(NEW);
  const [key] = useState(newKey);
  const like = query.get("like");
  useResource(async (signal) => {
    if (!like) return null;
    const one = await get(`${AT}/llm-tasks/${like}`, {}, { signal });
    setForm({
      ...NEW, agent_slug: one.agent_slug, prompt: one.prompt, context_id: one.context_id === one.id ? "" : one.context_id,
      desired_format: one.desired_format, priority: String(one.priority), max_attempts: String(one.max_attempts),
      timeout_sec: String(one.policy.timeout_sec), labels: one.labels.join(" "), context_hints: one.context_hints.join("\n"),
    });
    return one;
  }, [like]);
  const workers = useResource((signal) => get(`${AT}/workers`, {}, { signal }), []);
  const put = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const input = (name, label, more = {}) => html`<label class="field"><span>${label}</span><input name=${name} value=${form[name]} onInput=${put(name)} autocomplete="off" ...${more} /></label>`;
  const taking = (workers.data?.workers ?? []).filter((one) => one.status === "online");
  const isReady = form.agent_slug.trim() && form.prompt.trim();
  return html`<p><a href=${href("tasks")}>All tasks</a></p><h1>New task</h1>
    <form class="panel" onSubmit=${(event) => event.preventDefault()}><div class="body stack">
      ${input("agent_slug", "Agent", { required: true, placeholder: "reviewer", maxlength: 200 })}
      <label class="field"><span>Prompt</span><textarea name="prompt" rows="8" required value=${form.prompt} onInput=${put("prompt")} /></label>
      <div class="filters bare">
        ${input("context_id", "Context", { placeholder: "A new one", maxlength: 200 })}
        <label class="field"><span>Output</span><select name="desired_format" value=${form.desired_format} onChange=${put("desired_format")}><option value="text">Text</option><option value="json">JSON</option></select></label>
        ${input("priority", "Priority, 0 to 9", { type: "number", min: 0, max: 9 })}
        ${input("max_attempts", "Attempts", { type: "number", min: 1, max: 10 })}
        ${input("timeout_sec", "Seconds at most", { type: "number", min: 1, max: 3600 })}
        ${input("labels", "Worker has labels", { placeholder: "None" })}
      </div>
      <label class="field"><span>Files and hints for the context, one a line</span><textarea name="context_hints" rows="2" value=${form.context_hints} onInput=${put("context_hints")} /></label>
      <p class="dim small">Tasks of one context run in order and continue one session.</p>
      <p><${ReviewButton} label="submit" disabled=${!isReady} title=${isReady ? undefined : "It needs an agent and a prompt"}
        body=${() => html`<dl class="facts">
            <dt>Agent</dt><dd>${form.agent_slug}</dd>
            <dt>Context</dt><dd>${form.context_id || "a new one"}</dd>
            <dt>Attempts</dt><dd>${form.max_attempts}, each ${form.timeout_sec} s at most; priority ${form.priority}</dd>
            <dt>Workers</dt><dd>${taking.length ? `${count(taking.length, "worker")} could take it: ${taking.map((one) => one.id).join(", ")}` : "none takes tasks now: it waits for one"}</dd>
          </dl>
          <pre class="quoted">${form.prompt.slice(0, 2_000)}${form.prompt.length > 2_000 ? "…" : ""}</pre>`}
        verb="Submit the task"
        act=${() => post(`${AT}/llm-tasks`, specOf(form, key))}
        done=${(task) => (go(href("tasks", ["task", task.id])), "Submitted")}
      /></p>
    </div></form>`;
}
