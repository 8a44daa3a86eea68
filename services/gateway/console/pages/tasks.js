import { html } from "../app/html.js";
import { Empty } from "../app/parts/states.js";

export const title = "Tasks";

export default function Page() {
  return html`<h1>Tasks</h1><${Empty} title="This page comes." />`;
}
