// Numbers, sizes and names as people read them.
const WHOLE = new Intl.NumberFormat();
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export const number = (value) => WHOLE.format(value ?? 0);

/** Return "1 row", "12 rows". */
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

export function bytes(value) {
  let left = value ?? 0;
  let unit = 0;
  while (left >= 1024 && unit < UNITS.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${unit && left < 10 ? left.toFixed(1) : Math.round(left)} ${UNITS[unit]}`;
}

/** Names of claude-mem's tables for people. */
const TABLES = {
  observations: "observation",
  session_summaries: "summary",
  user_prompts: "prompt",
  sdk_sessions: "session",
};

export const table = (name) => TABLES[name] ?? name.replaceAll("_", " ");
export const tables = (name, rows) =>
  TABLES[name] ? count(rows, TABLES[name], `${TABLES[name].replace(/y$/, "ie")}s`) : `${number(rows)} ${table(name)}`;

/** Who asked, as people read it: the gateway names a caller by its key, and beside it what passed the request on. */
export function asker(actor) {
  const name = actor.split(" by ")[0].replace(/@gateway$/, "").replace(/^key:/, "key ");
  return name === "open" ? "a caller without a key" : name;
}
