// A chart over time, as SVG: lines that keep their width at any size, and the values under the pointer in words.
import { html, useEffect, useRef, useState } from "../html.js";
import { exact } from "./time.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [52, 60, 10, 24];
const DATE = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const SECONDS = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** `times` in milliseconds, one or two `series`: `{label, values, format}`; `summary` says the same in words. */
export function Chart({ times, series, height = 170, summary }) {
  const at = useRef(null);
  const [width, setWidth] = useState(600);
  const [near, setNear] = useState(null);
  useEffect(() => {
    const sizes = new ResizeObserver(() => setWidth(at.current?.clientWidth || 600));
    sizes.observe(at.current);
    return () => sizes.disconnect();
  }, []);
  const [first, last] = [times[0], times.at(-1)];
  const inner = width - LEFT - (series.length > 1 ? RIGHT : 14);
  const x = (time) => LEFT + (last > first ? ((time - first) / (last - first)) * inner : inner / 2);
  const tops = series.map(({ values }) => Math.max(...values, 1) * 1.08);
  const y = (value, index) => TOP + (1 - value / tops[index]) * (height - TOP - BOTTOM);
  const seek = (event) => {
    const here = event.clientX - at.current.getBoundingClientRect().left;
    setNear(times.reduce((best, time, index) => (Math.abs(x(time) - here) < Math.abs(x(times[best]) - here) ? index : best), 0));
  };
  const marks = last > first ? [0, 0.5, 1] : [0.5];
  const tick = last - first > 172_800_000 ? DATE : last - first > 240_000 ? CLOCK : SECONDS;
  const shown = near === null ? times.length - 1 : Math.min(near, times.length - 1);
  return html`<figure class="chart" ref=${at} onPointerMove=${seek} onPointerLeave=${() => setNear(null)}>
    <svg width=${width} height=${height} aria-hidden="true">
      ${[0, 0.5, 1].map((part) => html`<g key=${part}>
        <line class="grid" x1=${LEFT} x2=${LEFT + inner} y1=${TOP + part * (height - TOP - BOTTOM)} y2=${TOP + part * (height - TOP - BOTTOM)} />
        ${series.map((one, index) => html`<text key=${one.label} class=${`c${index + 1}`} text-anchor=${index ? "start" : "end"}
          x=${index ? LEFT + inner + 8 : LEFT - 8} y=${TOP + part * (height - TOP - BOTTOM) + 4}>${one.format((1 - part) * tops[index])}</text>`)}</g>`)}
      ${marks.map((part) => html`<text key=${part} text-anchor=${["start", "middle", "end"][part * 2]} x=${LEFT + part * inner} y=${height - 4}>${tick.format(first + part * (last - first))}</text>`)}
      ${near !== null && html`<line class="near" x1=${x(times[shown])} x2=${x(times[shown])} y1=${TOP} y2=${height - BOTTOM} />`}
      ${series.map((one, index) => html`<g key=${one.label} class=${`c${index + 1}`}>
        <polyline points=${times.map((time, place) => `${x(time).toFixed(1)},${y(one.values[place], index).toFixed(1)}`).join(" ")} />
        ${times.length < 40 && times.map((time, place) => html`<circle key=${place} cx=${x(time)} cy=${y(one.values[place], index)} r="2.5" />`)}</g>`)}
    </svg>
    <figcaption><span class="unseen">${summary}</span><span class="small row" aria-hidden="true"><span class="dim">${exact(times[shown])}</span>
      ${series.map((one, index) => html`<span key=${one.label}><i class=${`c${index + 1}`} /> ${one.label} <b>${one.format(one.values[shown])}</b></span>`)}</span></figcaption>
  </figure>`;
}
