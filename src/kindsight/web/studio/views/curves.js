/** Curves of a training by epoch, as SVG. */

import { html } from "../parts.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [440, 210, 44, 30, 12, 92];
const KINDS = [
  { title: "Accuracy", column: "accuracy", isShare: true },
  { title: "Loss", column: "loss", isShare: false },
];

/** Show accuracy and loss of the training and the validation images; `rows` are epochs. */
export function Curves({ rows }) {
  if (rows.length === 0) return null;
  return html`<div class="curves">${KINDS.map((kind) => html`<${Chart} key=${kind.column} rows=${rows} ...${kind} />`)}</div>`;
}

function Chart({ rows, title, column, isShare }) {
  const lines = [["training", column], ["validation", `val_${column}`]].map(([name, key]) => {
    const points = rows.map((row, place) => [place, row[key]]).filter(([, value]) => Number.isFinite(value));
    return { name, points };
  }).filter(({ points }) => points.length > 0);
  if (lines.length === 0) return null;
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value));
  const [low, high] = range(values, isShare);
  const x = (place) => LEFT + (rows.length === 1 ? 0.5 : place / (rows.length - 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const text = (value) => (isShare ? `${Math.round(100 * value)}%` : value.toPrecision(2));
  const last = lines.map(({ name, points }) => `${name} ${isShare ? `${(100 * points.at(-1)[1]).toFixed(1)}%` : points.at(-1)[1].toFixed(3)}`);
  const ends = apart(lines.map(({ points }) => y(points.at(-1)[1])));
  return html`<figure class="chart">
    <figcaption>${title}</figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`${title} after ${rows.length} epochs: ${last.join(", ")}`}>
      ${[0, 0.5, 1].map((share) => {
        const value = low + share * (high - low);
        return html`<g key=${share}><line class="rule" x1=${LEFT} x2=${WIDTH - RIGHT} y1=${y(value)} y2=${y(value)} />
          <text class="tick" x=${LEFT - 6} y=${y(value) + 4} text-anchor="end">${text(value)}</text></g>`;
      })}
      <text class="tick" x=${LEFT} y=${HEIGHT - 8}>epoch 1</text>
      ${rows.length > 1 ? html`<text class="tick" x=${WIDTH - RIGHT} y=${HEIGHT - 8} text-anchor="end">${rows.length}</text>` : null}
      ${lines.map(({ name, points }, place) => html`<g key=${name} class=${`curve is-${name}`}>
        <path d=${points.map(([at, value], n) => `${n ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("")} />
        <circle cx=${x(points.at(-1)[0])} cy=${y(points.at(-1)[1])} r="3.5" />
        <text x=${x(points.at(-1)[0]) + 8} y=${ends[place] + 4}>${name}</text></g>`)}
    </svg>
  </figure>`;
}

/** Return the least and the greatest value of an axis. */
function range(values, isShare) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (isShare) return [Math.max(0, Math.floor(low * 10 - 0.5) / 10), 1];
  return [0, high > 0 ? 1.08 * high : 1];
}

/** Return heights of labels that do not cover each other. */
function apart(heights) {
  if (heights.length < 2 || Math.abs(heights[0] - heights[1]) >= 14) return heights;
  const middle = (heights[0] + heights[1]) / 2;
  return heights[0] <= heights[1] ? [middle - 7, middle + 7] : [middle + 7, middle - 7];
}
