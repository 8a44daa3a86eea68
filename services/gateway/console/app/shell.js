// The frame of every page: navigation, how the connection is, who is logged in, and the theme.
import { html, signal, useEffect, useRef } from "./html.js";
import { logOut } from "./api.js";
import { gateway, nats, sessionChanged } from "./events.js";
import { href, pageName, place } from "./router.js";
import { isLoggedIn, session } from "./session.js";
import { now, projects } from "./store.js";
import { announce, toast } from "./parts/toast.js";
import { Icon } from "./parts/states.js";
import { span } from "./parts/time.js";

const PAGES = [
  ["overview", "Overview"],
  ["projects", "Project"],
  ["memory", "Memory"],
  ["tasks", "Tasks"],
  ["settings", "Settings"],
];
const THEMES = ["auto", "light", "dark"];
const KEPT = "membridge-theme";

const theme = signal(localStorage.getItem(KEPT) ?? "auto");

function show(name) {
  theme.value = name;
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  localStorage.setItem(KEPT, name);
  dispatchEvent(new Event("themechange"));
}
show(THEMES.includes(theme.peek()) ? theme.peek() : "auto");

async function leave() {
  try {
    await logOut();
  } catch (error) {
    if (error.status !== 401) return toast(`Not logged out: ${error.detail}`, "fail");
  }
  session.value = null;
  sessionChanged();
}

/** The link of a page; the one of projects goes to the project that is open, or to the first. */
function address(page) {
  if (page !== "projects") return href(page);
  const here = place.value.page === "projects" ? place.value.path[0] : undefined;
  const first = here ?? projects.value?.data?.projects[0]?.canonical_id;
  return href("projects", first ? [first] : []);
}

export function Shell({ children }) {
  const before = useRef(pageName.value);
  useEffect(() => {
    const heading = document.querySelector("main h1");
    heading?.setAttribute("tabindex", "-1");
    // A screen reader is told of another page by its heading, which gets the focus.
    if (before.current !== pageName.value) heading?.focus({ preventScroll: true });
    before.current = pageName.value;
  });
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="top">
      <span class="brand"><${Mark} />Membridge</span>
      <nav aria-label="Pages">
        ${PAGES.map(
          ([page, label]) => html`<a key=${page} href=${address(page)} aria-current=${pageName.value === page ? "page" : undefined}>${label}</a>`,
        )}
      </nav>
      <span class="who">
        <${Connection} />
        <button type="button" class="plain" onClick=${() => show(THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length])}
          aria-label=${`Theme: ${theme.value}`} title=${`Theme: ${theme.value}`}><${Theme} /></button>
        ${isLoggedIn.value && html`<button type="button" class="plain" onClick=${leave} title=${`Logged in with key ${session.value.name}`}>Log out</button>`}
      </span>
    </header>
    <${Lost} />
    <main id="main" tabindex="-1">${children}</main>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

const Mark = () => html`<svg class="mark" viewBox="0 0 24 24" aria-hidden="true"><path d="M2.500 17.500h19M5.500 17.500v-7M18.500 17.500v-7M2.500 12.500c4 0 4-5.500 9.500-5.500s5.500 5.500 9.500 5.500M12 7v10.500" /></svg>`;
const Theme = () => html`<svg class="icon theme" viewBox="0 0 24 24" aria-hidden="true"><path d="M12 3a9 9 0 1 0 .01 0" /><path class="half" d="M12 3a9 9 0 0 1 0 18z" /></svg>`;

/** Whether what is shown is live; in words, not in colour alone. */
function Connection() {
  const [kind, text] =
    gateway.value.state === "connecting"
      ? ["off", "Connecting"]
      : gateway.value.state === "lost"
        ? ["fail", "Gateway lost"]
        : nats.value.state === "lost"
          ? ["fail", "NATS lost"]
          : ["ok", "Live"];
  useEffect(() => announce(text), [text]);
  return html`<span class=${`badge ${kind}`} id="connection"><${Icon} name=${kind} />${text}</span>`;
}

/** What is cut off from what: browser and gateway, or gateway and NATS. A machine that is away is in its own row. */
function Lost() {
  if (gateway.value.state === "lost") {
    return html`<p class="banner" role="alert"><strong>The browser cannot reach the gateway</strong> since ${since(gateway)}.
      What you see is from before. It reconnects by itself; if the gateway has stopped: <code>membridge up</code></p>`;
  }
  if (nats.value.state === "lost") {
    return html`<p class="banner" role="alert"><strong>The gateway cannot reach NATS</strong> since ${since(nats)}.
      What you see is from before, and nothing can be changed. It reconnects by itself; if nats-server has stopped: <code>membridge up</code></p>`;
  }
  return null;
}

const since = (where) => span(now.value - where.value.since);
