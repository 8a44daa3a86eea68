// The console's entry: who uses it, the frame around each page, and the page of the address.
import { effect, html, render } from "./html.js";
import { whoAmI } from "./api.js";
import { on, start, stop } from "./events.js";
import { listen, pageName, place } from "./router.js";
import { session } from "./session.js";
import * as store from "./store.js";
import { Login } from "./login.js";
import { Shell } from "./shell.js";
import { Failure, Loading } from "./parts/states.js";
import { Notices, toast } from "./parts/toast.js";
import { ReviewDialog } from "./parts/review.js";
import * as memory from "../pages/memory.js";
import * as overview from "../pages/overview.js";
import * as project from "../pages/project.js";
import * as settings from "../pages/settings.js";
import * as tasks from "../pages/tasks.js";

/** Pages by the first part of their address. */
const PAGES = { overview, projects: project, memory, tasks, settings };
/** Milliseconds between two tries to learn who the caller is. */
const AGAIN = 1_000;

async function identify() {
  for (;;) {
    try {
      session.value = await whoAmI();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  }
}

function Console() {
  const who = session.value;
  if (who === undefined) return html`<main class="login" id="main"><${Loading} label="Connecting to the gateway" /></main>`;
  if (who === null) return html`<${Login} /><${Notices} />`;
  const page = PAGES[pageName.value];
  const { path, query } = place.value;
  return html`<${Shell}>
      ${page
        ? html`<${page.default} key=${pageName.value} params=${{ path, query }} />`
        : html`<h1>Not found</h1><${Failure} error=${{ title: "There is no such page", detail: place.value.page }} />`}
    </${Shell}>
    <${ReviewDialog} />
    <${Notices} />`;
}

effect(() => {
  const title = session.value ? (PAGES[pageName.value]?.title ?? "Not found") : "Log in";
  document.title = `${title} · Membridge`;
});
effect(() => {
  if (session.value) {
    start();
    store.open();
  } else {
    stop();
    store.close();
  }
});
on(["session"], identify);
addEventListener("unhandledrejection", (event) => toast(`The console failed: ${event.reason?.message ?? event.reason}`, "fail"));
listen();
identify();
render(html`<${Console} />`, document.getElementById("app"));
