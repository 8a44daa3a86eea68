import { html } from "../app/html.js";
import { Empty } from "../app/parts/states.js";

export const title = "Project";

export default function Page() {
  return html`<h1>Project</h1><${Empty} title="This page comes." />`;
}
