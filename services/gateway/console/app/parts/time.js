// Times are local; the exact one, with its offset, is shown on hover and read to screen readers.
import { html } from "../html.js";
import { now } from "../store.js";

const EXACT = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
  timeZoneName: "short",
});
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const YEAR = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const exact = (at) => EXACT.format(new Date(at));

/** Return a length of time in words that are short: "40 s", "3 min", "5 h", "2 d". */
export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

function said(at, style, seen) {
  const age = seen - at;
  if (style === "clock") return CLOCK.format(at);
  if (style === "until") return age > 0 ? "over" : `in ${span(-age)}`;
  if (style === "ago" || Math.abs(age) < 43_200_000) {
    if (age < -2_000) return `in ${span(-age)}`;
    return age < 2_000 ? "just now" : `${span(age)} ago`;
  }
  return (age > 300 * 86_400_000 ? YEAR : DAY).format(at);
}

/** A time. `style`: "auto" (ago, after half a day the date), "ago", "clock" or "until"; `none` when there is no time. */
export function Time({ at, style = "auto", none = "never" }) {
  const date = at ? new Date(at) : null;
  if (!date || Number.isNaN(date.getTime())) return html`<span class="dim">${none}</span>`;
  return html`<time datetime=${date.toISOString()} title=${exact(date)}>${said(date, style, now.value)}</time>`;
}
