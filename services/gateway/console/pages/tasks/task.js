// One task: what it is, how it stands, its result, and its log as it is written.
import { html } from "../../app/html.js";
import { get } from "../../app/api.js";
import { href } from "../../app/router.js";
import { may } from "../../app/session.js";
import { useResource } from "../../app/store.js";
import { useKept } from "../../app/parts/filters.js";
import { Shown } from "../../app/parts/states.js";
import { count, number } from "../../app/parts/text.js";
import { Time } from "../../app/parts/time.js";
import { toast } from "../../app/parts/toast.js";
import { Log } from "./log.js";
import { AT, contentOf, named, save, Status, useCalm } from "./parts.js";
import { Change } from "./queue.js";

const LIVE = ["queued", "leased", "running", "failed"];

export function Task({ id, query }) {
  const resource = useResource((signal) => get(`${AT}/llm-tasks/${id}/result`, {}, { signal }), [id]);
  useCalm(resource.reload, (event) => event?.task_id === id && event.kind === "status", 200);
  const found = useKept(resource);
  const task = found.data?.task;
  return html`<p><a href=${href("tasks")}>All tasks</a></p>
    <div class="spread"><h1>${task ? named(task) : "Task"}</h1>
      ${task && html`<span class="row"><span role="status" id="task-state"><${Status} status=${task.status} /></span>
        ${may("tasks") && html`<a class="button small" href=${href("tasks", ["new"], { like: id })}>New one like it</a>
          ${LIVE.includes(task.status) && html`<${Change} change="cancel" wanted=${{ ids: [id] }} />`}
          ${["failed", "dead"].includes(task.status) && html`<${Change} change="requeue" wanted=${{ ids: [id] }} />`}`}</span>`}
    </div>
    <${Shown} found=${found} what="This task" lines=${6}>
      ${(data) => html`<div class="stack wide-gap">
        ${data.task.reason && html`<p class=${`panel why ${data.task.status}`}>${data.task.reason}</p>`}
        <div class="panels">
          <section class="panel"><header><h2>Task</h2></header><div class="body"><${Facts} ...${data} /></div></section>
          <section class="panel"><header><h2>Prompt</h2></header><pre class="quoted">${data.task.prompt}</pre></section>
        </div>
        ${data.result && html`<${Result} ...${data} />`}
      </div>`}
    </${Shown}>
    <${Log} id=${id} query=${query} />`;
}

function Facts({ task, result }) {
  return html`<dl class="facts">
    <dt>Id</dt><dd class="mono">${task.id}</dd>
    <dt>Agent</dt><dd><a href=${href("tasks", [], { agent: task.agent_slug })}>${task.agent_slug}</a></dd>
    <dt>Context</dt><dd>${task.context_id === task.id ? "its own" : html`<a href=${href("tasks", [], { context: task.context_id })}>${task.context_id}</a>`}</dd>
    <dt>Worker</dt><dd>${task.worker_id ?? "none yet"}</dd>
    <dt>Attempts</dt><dd>${task.attempts} of ${task.max_attempts}${task.interruptions > 0 && `, ${count(task.interruptions, "interruption")}`}</dd>
    <dt>Submitted</dt><dd><${Time} at=${task.created_at} /></dd>
    <dt>Changed</dt><dd><${Time} at=${task.updated_at} /></dd>
    ${task.not_before && html`<dt>Waits until</dt><dd><${Time} at=${task.not_before} /></dd>`}
    ${task.labels.length > 0 && html`<dt>Labels</dt><dd>${task.labels.join(", ")}</dd>`}
    <dt>Priority</dt><dd>${task.priority}</dd>
    ${result && html`<dt>Took</dt><dd>${number(Math.round(result.metrics.duration_ms / 100) / 10)} s${result.metrics.tokens_used ? `, ${number(result.metrics.tokens_used)} tokens` : ""}</dd>`}
  </dl>`;
}

function Result({ task, result, artifact }) {
  const text = artifact?.content ?? result.output ?? result.error_message ?? "";
  const isCut = artifact?.next_offset !== null && artifact?.next_offset !== undefined;
  const name = `${task.id}.${task.desired_format === "json" && result.status === "success" ? "json" : "txt"}`;
  const download = async () => {
    try {
      save(name, artifact ? await contentOf(artifact.id) : text);
    } catch (error) {
      toast(`Not downloaded: ${error.detail || error.message}`, "fail");
    }
  };
  return html`<section class="panel" aria-label="Result"><header><h2>${result.status === "success" ? "Result" : "Error"}</h2>
      <span class="row"><span class="dim"><${Time} at=${result.completed_at} /></span><button type="button" class="small" onClick=${download}>Download</button></span></header>
    <pre class="quoted" tabindex="0">${text || "(empty)"}</pre>
    ${isCut && html`<p class="body dim">This is its beginning: download it to see all.</p>`}
  </section>`;
}
