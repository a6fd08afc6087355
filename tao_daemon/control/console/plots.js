// Plots as hand-made SVG: each has its numbers in words for those who do not see it. Colours come from the style sheet.

import { decimal, interval, signed, whole } from "./format.js";
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { outcomeOf } from "./words.js";

/** The width of an element, as it changes. */
function useWidth(usual) {
  const box = useRef(null);
  const [width, setWidth] = useState(usual);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.max(220, Math.floor(entry.contentRect.width))));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  return [box, width];
}

/** Round numbers that cover [low, high]. */
export function ticks(low, high, about = 4) {
  const span = Math.max(high - low, 1e-9);
  const raw = span / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9; n += 1)
    found.push(Number((n * step).toPrecision(6)));
  return found;
}

/** An estimate with its interval on a scale, and a line at `zero`. */
export function Whiskers({ value, low, high, from, to, zero = null, tone = "busy", label }) {
  const [box, width] = useWidth(320);
  const x = (at) => 8 + ((Math.max(from, Math.min(to, at)) - from) / (to - from)) * (width - 16);
  const marks = width > 420 ? ticks(from, to, 8) : ticks(from, to, 4);
  return html`<div class="plot" ref=${box}><svg width=${width} height="46" role="img" aria-label=${label}>
    <line class="axis" x1=${x(from)} x2=${x(to)} y1="24" y2="24" />
    ${marks.map(
      (at) => html`<g key=${at}><line class="grid" x1=${x(at)} x2=${x(at)} y1="20" y2="28" />
      <text class="tick" x=${x(at)} y="42" text-anchor=${at === from ? "start" : at === to ? "end" : "middle"}
        >${from < 0 ? signed(at, 1) : decimal(at, 1)}</text></g>`,
    )}
    ${zero === null ? null : html`<line class="zero" x1=${x(zero)} x2=${x(zero)} y1="4" y2="28" />`}
    <line class=${`whisker tone-${tone}`} x1=${x(low)} x2=${x(high)} y1="16" y2="16" />
    <line class=${`whisker tone-${tone}`} x1=${x(low)} x2=${x(low)} y1="10" y2="22" />
    <line class=${`whisker tone-${tone}`} x1=${x(high)} x2=${x(high)} y1="10" y2="22" />
    <circle class=${`dot tone-${tone}`} cx=${x(value)} cy="16" r="5" />
  </svg></div>`;
}

/** A small interval for a table row, on the scale of the whole table: −reach to reach. */
export function MiniWhiskers({ low, high, value, reach, tone }) {
  const x = (at) => 3 + ((Math.max(-reach, Math.min(reach, at)) / reach + 1) / 2) * 84;
  return html`<svg class="mini" width="90" height="14" aria-hidden="true">
    <line class="zero" x1=${x(0)} x2=${x(0)} y1="1" y2="13" />
    <line class=${`whisker tone-${tone}`} x1=${x(low)} x2=${x(high)} y1="7" y2="7" />
    <circle class=${`dot tone-${tone}`} cx=${x(value)} cy="7" r="3" />
  </svg>`;
}

/** Bars over equal bins. `top` is the tallest of all that are compared, `titles` the numbers behind the bars. */
export function Histogram({ counts, edges, top, titles, label }) {
  const [box, width] = useWidth(280);
  const height = 92;
  const base = height - 18;
  const slot = (width - 4) / counts.length;
  return html`<div class="plot" ref=${box}><svg width=${width} height=${height} role="img" aria-label=${label}>
    ${counts.map((count, place) => {
      const tall = count ? Math.max(2, (count / top) * (base - 6)) : 0;
      const title = `${whole(titles[place])} from ${decimal(edges[place])} to ${decimal(edges[place + 1])}`;
      return html`<rect key=${place} class="bar" x=${2 + place * slot + 0.5} y=${base - tall}
        width=${Math.max(1, slot - 1)}
        height=${tall}><title>${title}</title></rect>`;
    })}
    <line class="axis" x1="2" x2=${width - 2} y1=${base + 0.5} y2=${base + 0.5} />
    ${[0, 0.5, 1].map(
      (at) => html`<text key=${at} class="tick" x=${2 + at * (width - 4)} y=${height - 3}
      text-anchor=${at === 0 ? "start" : at === 1 ? "end" : "middle"}>${decimal(at, 1)}</text>`,
    )}
  </svg></div>`;
}

/** Held-out differences over rounds, each with its interval; the mark's shape says how the round ended. */
export function GainPlot({ points, height = 190 }) {
  const [box, width] = useWidth(640);
  const shown = points.filter((point) => point.difference !== null);
  const low = Math.min(0, ...shown.map((point) => point.low ?? point.difference));
  const high = Math.max(0, ...shown.map((point) => point.high ?? point.difference));
  const room = Math.max(0.05, (high - low) * 0.08);
  const marks = ticks(Math.max(-1, low - room), Math.min(1, high + room));
  const [bottom, top] = [Math.min(marks[0], low - room / 2), Math.max(marks.at(-1), high + room / 2)];
  const left = 42;
  const y = (value) => 8 + (1 - (value - bottom) / (top - bottom)) * (height - 32);
  const slot = (width - left - 8) / Math.max(points.length, 1);
  const x = (place) => left + (place + 0.5) * slot;
  const every = Math.max(1, Math.ceil(points.length / (width / 46)));
  const label = `Held-out difference of each round. ${points.map(spoken).join(". ")}`;
  return html`<div class="plot" ref=${box}><svg width=${width} height=${height} role="img" aria-label=${label}>
    ${marks.map(
      (
        at,
      ) => html`<g key=${at}><line class=${at === 0 ? "zero" : "grid"} x1=${left} x2=${width} y1=${y(at)} y2=${y(at)} />
      <text class="tick" x=${left - 6} y=${y(at) + 4} text-anchor="end">${signed(at, at % 0.1 ? 2 : 1)}</text></g>`,
    )}
    ${points.map(
      (point, place) => html`<a key=${point.round} href=${`#/rounds/${point.round}`} tabindex="-1" class="point">
      <title>${spoken(point)}</title>
      <rect class="hit" x=${x(place) - slot / 2} y="0" width=${slot} height=${height} />
      ${
        point.difference === null
          ? null
          : html`<line class=${`whisker tone-${outcomeOf(point.outcome).tone}`} x1=${x(place)}
        x2=${x(place)} y1=${y(point.low ?? point.difference)} y2=${y(point.high ?? point.difference)} />`
      }
      <${Mark} outcome=${point.outcome} x=${x(place)} y=${point.difference === null ? y(0) : y(point.difference)} />
      ${
        place % every
          ? null
          : html`<text class="tick" x=${x(place)} y=${height - 6} text-anchor="middle">
        ${point.round}</text>`
      }
    </a>`,
    )}
  </svg></div>`;
}

function spoken(point) {
  const gain =
    point.difference === null ? "no measurement" : `${signed(point.difference)} ${interval(point.low, point.high)}`;
  return `Round ${point.round} ${outcomeOf(point.outcome).word}: ${gain}`;
}

/** A full circle, a cross, an empty circle, a dash: readable without colour. */
export function Mark({ outcome, x, y }) {
  const { tone } = outcomeOf(outcome);
  if (outcome === "accepted") return html`<circle class=${`dot tone-${tone}`} cx=${x} cy=${y} r="5" />`;
  if (outcome === "rejected") {
    return html`<path class=${`cross tone-${tone}`} d=${`M${x - 5} ${y - 5}l10 10M${x + 5} ${y - 5}l-10 10`} />`;
  }
  if (outcome === "inconclusive") return html`<circle class=${`ring tone-${tone}`} cx=${x} cy=${y} r="5" />`;
  return html`<path class=${`cross tone-${tone}`} d=${`M${x - 5} ${y}h10`} />`;
}

const LEGEND = ["accepted", "rejected", "inconclusive", "failed"];

/** What the marks of a gain plot mean. */
export function GainLegend({ points }) {
  const there = new Set(points.map((point) => point.outcome));
  return html`<ul class="legend">
    ${LEGEND.filter((outcome) => there.has(outcome) || outcome === "accepted").map(
      (outcome) => html`<li key=${outcome}>
      <svg width="16" height="14" aria-hidden="true"><${Mark} outcome=${outcome} x=${8} y=${7} />
        </svg> ${outcomeOf(outcome).word}</li>`,
    )}
  </ul>`;
}
