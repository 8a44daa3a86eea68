// Changes of many tasks that the coordinator works on: how far each is, what came of it, and how to stop it.
import { html, signal } from "../../app/html.js";
import { get, post } from "../../app/api.js";
import { may } from "../../app/session.js";
import { now, useResource } from "../../app/store.js";
import { ReviewButton } from "../../app/parts/review.js";
import { asker, count, number } from "../../app/parts/text.js";
import { Time } from "../../app/parts/time.js";
import { AT } from "./parts.js";

/** What a change is called while it goes on, and after it. */
export const WORDS = { cancel: ["Cancelling", "cancelled"], requeue: ["Queueing again", "queued again"] };
/** Milliseconds for which one that ended is shown. */
const SHOWN = 600_000;
/** Ended ones that were put away. */
const closed = signal([]);

export function TaskJobs() {
  const found = useResource((aborts) => get(`${AT}/task-jobs`, {}, { signal: aborts }), [], { events: ["task_job"] });
  const jobs = (found.data?.jobs ?? []).filter((one) => !one.ended_at || (now.value - Date.parse(one.ended_at) < SHOWN && !closed.value.includes(one.id)));
  if (!jobs.length) return null;
  return html`<section class="panel" aria-label="Changes of many tasks"><ul class="task-jobs">
    ${jobs.map((one) => html`<li key=${one.id} class="body spread">${one.ended_at ? html`<${Ended} job=${one} />` : html`<${Running} job=${one} done=${found.reload} />`}</li>`)}
  </ul></section>`;
}

/** What came of tasks by its code, in words: "60 tasks cancelled, 2 not (conflict)". */
export function outcome({ outcomes, change }) {
  const { changed = 0, ...others } = outcomes;
  const failed = Object.entries(others).map(([code, many]) => `${number(many)} not (${code.replaceAll("_", " ")})`);
  return [`${count(changed, "task")} ${WORDS[change][1]}`, ...failed].join(", ");
}

function Running({ job, done }) {
  const left = Math.max(0, job.total - job.tried);
  return html`<span class="row"><strong>${WORDS[job.change][0]} ${count(job.total, "task")}</strong>
      <progress max=${job.total} value=${job.tried} aria-label="Tasks that were tried" /> ${number(job.tried)} of ${number(job.total)}</span>
    ${may("tasks") && html`<${ReviewButton} small label="stop" verb="Stop here" back="Go on"
      body=${() => html`<p>${outcome(job)} so far, which stays. <strong>${count(left, "task")}</strong> stay as they are.</p>`}
      act=${() => post(`${AT}/task-jobs/${job.id}/stop`)} done=${() => (done(), "Stopped")} />`}`;
}

const Ended = ({ job }) => html`<span>${outcome(job)}${job.state === "stopped" && `, stopped at ${number(job.tried)} of ${number(job.total)}`}
    <span class="dim small"> by ${asker(job.requested_by)} <${Time} at=${job.ended_at} /></span></span>
  <button type="button" class="plain" aria-label="Close" onClick=${() => (closed.value = [...closed.value, job.id])}>×</button>`;
