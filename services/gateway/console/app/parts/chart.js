// A chart over time. uPlot is loaded when the first one is shown; what it draws is also a sentence.
import { html, useEffect, useRef, useState } from "../html.js";

const VENDOR = `${document.getElementById("app").dataset.base}/vendor`;
let loading = null;

/** Load uPlot: a script of the published bytes, whose address the one policy of this page lets through. */
function load() {
  loading ??= new Promise((resolve, reject) => {
    const trusted = globalThis.trustedTypes?.createPolicy("console", {
      createScriptURL: (url) => {
        if (url !== `${VENDOR}/uPlot.iife.min.js`) throw new TypeError(`not a script of the console: ${url}`);
        return url;
      },
    });
    const sheet = Object.assign(document.createElement("link"), { rel: "stylesheet", href: `${VENDOR}/uPlot.min.css` });
    const script = document.createElement("script");
    const url = `${VENDOR}/uPlot.iife.min.js`;
    script.src = trusted ? trusted.createScriptURL(url) : url;
    script.onload = () => resolve(globalThis.uPlot);
    script.onerror = () => reject(new Error("the chart could not be loaded"));
    document.head.append(sheet, script);
  });
  return loading;
}

/** Return a colour of the style sheet as the canvas takes it. */
function colour(name, within) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  within.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/**
 * `times` in seconds, `series`: `{label, values, colour: "--c1", format?, scale?}`; `summary` says the same in words.
 */
export function Chart({ times, series, height = 140, summary }) {
  const at = useRef(null);
  const [failed, setFailed] = useState(null);
  const drawn = JSON.stringify([times, series.map((one) => one.values)]);
  useEffect(() => {
    let chart = null;
    let isGone = false;
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const draw = (UPlot) => {
      chart?.destroy();
      if (isGone || !at.current) return;
      const line = colour("--line", at.current);
      const dim = colour("--dim", at.current);
      const font = `11px ${getComputedStyle(at.current).fontFamily}`;
      const axis = { stroke: dim, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 } };
      const sides = [3, 1];
      chart = new UPlot(
        {
          width: at.current.clientWidth,
          height,
          cursor: { y: false },
          legend: { live: true },
          scales: Object.fromEntries(series.map((one, index) => [one.scale ?? `y${index}`, { range: fromZero }])),
          axes: [
            axis,
            ...series.map((one, index) => ({
              ...axis,
              scale: one.scale ?? `y${index}`,
              side: sides[index],
              size: 58,
              grid: { show: index === 0, stroke: line, width: 1 },
              values: (_, found) => found.map((value) => (one.format ?? String)(value)),
            })),
          ],
          series: [
            {},
            ...series.map((one, index) => ({
              label: one.label,
              scale: one.scale ?? `y${index}`,
              stroke: colour(one.colour, at.current),
              width: 1.5,
              points: { show: times.length < 40, size: 5 },
              value: (_, value) => (value === null || value === undefined ? "" : (one.format ?? String)(value)),
            })),
          ],
        },
        [times, ...series.map((one) => one.values)],
        at.current,
      );
    };
    const again = () => load().then(draw, setFailed);
    again();
    const sizes = new ResizeObserver(() => chart && at.current && chart.setSize({ width: at.current.clientWidth, height }));
    sizes.observe(at.current);
    scheme.addEventListener("change", again);
    addEventListener("themechange", again);
    return () => {
      isGone = true;
      sizes.disconnect();
      scheme.removeEventListener("change", again);
      removeEventListener("themechange", again);
      chart?.destroy();
    };
  }, [drawn, height]);
  if (failed) return html`<p class="dim">${failed.message}</p>`;
  return html`<figure class="chart"><div ref=${at} aria-hidden="true" /><figcaption class="unseen">${summary}</figcaption></figure>`;
}

const fromZero = (_, least, most) => [Math.min(0, least ?? 0), (most ?? 1) * 1.08 || 1];
