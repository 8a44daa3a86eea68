// Addresses: /console/PAGE/REST?QUERY. The filter, the open row and the tab of a page are in its query, so that Back
// works and a link to one row can be sent.
import { batch, computed, signal } from "./html.js";

const AT = "/console";

function read() {
  const parts = location.pathname.slice(AT.length).split("/").filter(Boolean).map(decode);
  return { page: parts[0] ?? "overview", path: parts.slice(1), query: new URLSearchParams(location.search) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Where the browser is: `page`, the further parts of the `path`, and the `query`. */
export const place = signal(read());
export const pageName = computed(() => place.value.page);

/** Return the address of a page: href("projects", [cid], {tab: "history"}). Empty values are left out. */
export function href(page, path = [], query = {}) {
  const said = [page === "overview" ? "" : page, ...path].filter((part) => part !== "").map(encodeURIComponent);
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "" && one !== false) asked.append(name, one);
    }
  }
  const text = asked.toString();
  return `${AT}/${said.join("/")}${text ? `?${text}` : ""}`;
}

/** Go to an address. With `replace` the one before is not kept: for what a person types, letter by letter. */
export function go(address, { replace = false } = {}) {
  if (address !== location.pathname + location.search) {
    history[replace ? "replaceState" : "pushState"](null, "", address);
  }
  arrive();
}

/** Change fields of the query and keep the others; an empty value removes its field. */
export function setQuery(fields, options) {
  const kept = {};
  for (const name of place.peek().query.keys()) kept[name] = place.peek().query.getAll(name);
  go(href(place.peek().page, place.peek().path, { ...kept, ...fields }), options);
}

function arrive() {
  const before = place.peek();
  batch(() => (place.value = read()));
  if (before.page !== place.peek().page || before.path.join("/") !== place.peek().path.join("/")) scrollTo(0, 0);
}

/** Follow links of the console without loading it again. */
export function listen() {
  addEventListener("popstate", arrive);
  addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const plain = !event.defaultPrevented && event.button === 0;
    if (!link || !plain || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.origin !== location.origin || link.target || link.hasAttribute("download")) return;
    if (link.pathname !== AT && !link.pathname.startsWith(`${AT}/`)) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}
