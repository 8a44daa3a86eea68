import { html } from "../app/html.js";
import { Empty } from "../app/parts/states.js";

export const title = "Memory";

export default function Page() {
  return html`<h1>Memory</h1><${Empty} title="This page comes." />`;
}
