/** A line of a chart, on logarithmic axes. */
export interface Series {
  readonly name: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
  /** Computed, not measured: dashed, without dots. */
  readonly derived?: boolean;
  /** Drawn thick. */
  readonly main?: boolean;
}

export interface Chart {
  readonly title: string;
  readonly subtitle: string;
  readonly x: string;
  readonly y: string;
  readonly series: readonly Series[];
}

const [WIDTH, HEIGHT] = [980, 500];
const PLOT = { left: 92, right: 640, top: 76, bottom: 440 };
const LABEL_GAP = 17;

/** Readable on light and on dark ground; told apart by people who see few colours, with the names at the lines. */
const COLOURS = ["#1f7fd6", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#17a2b8", "#888888", "#9467bd"];
const STYLE = `
  svg { background: #ffffff; font: 13px system-ui, sans-serif; }
  text { fill: #1f2328; } .soft { fill: #59636e; } .grid { stroke: #d8dee4; } .axis { stroke: #59636e; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; } text { fill: #e6edf3; } .soft { fill: #9198a1; } .grid { stroke: #30363d; } .axis { stroke: #9198a1; }
  }`;

/** Draws lines over logarithmic axes, each named at its end. @returns an SVG document. */
export function drawChart({ title, subtitle, x, y, series }: Chart): string {
  const all = series.flatMap(({ points }) => points);
  const across = axis(
    all.map((point) => point.x),
    PLOT.left,
    PLOT.right,
  );
  const up = axis(
    all.map((point) => point.y),
    PLOT.bottom,
    PLOT.top,
  );
  const colourOf = (one: Series): string => COLOURS[series.indexOf(one) % COLOURS.length]!;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escape(title)}">
<style>${STYLE}
</style>
<text x="${PLOT.left}" y="28" font-size="17" font-weight="600">${escape(title)}</text>
<text x="${PLOT.left}" y="50" class="soft">${escape(subtitle)}</text>
${across.ticks.map((tick) => gridLine(across.place(tick), "x", tick)).join("\n")}
${up.ticks.map((tick) => gridLine(up.place(tick), "y", tick)).join("\n")}
<text x="${(PLOT.left + PLOT.right) / 2}" y="${PLOT.bottom + 44}" text-anchor="middle" class="soft">${escape(x)}</text>
<text transform="translate(18 ${(PLOT.top + PLOT.bottom) / 2}) rotate(-90)" text-anchor="middle" class="soft">${escape(y)}</text>
${series.map((one) => line(one, colourOf(one), across.place, up.place)).join("\n")}
${labels(series, colourOf, across.place, up.place)}
</svg>
`;
}

interface Axis {
  readonly ticks: readonly number[];
  readonly place: (value: number) => number;
}

/** From the 1, 2 or 5 below the least value to that above the greatest. */
function axis(values: readonly number[], start: number, end: number): Axis {
  const exponents = Array.from({ length: 24 }, (_, i) => i - 8);
  const steps = exponents.flatMap((exponent) => [1, 2, 5].map((step) => Number(`${step}e${exponent}`)));
  const low = steps.filter((step) => step <= Math.min(...values)).at(-1)!;
  const high = steps.find((step) => step >= Math.max(...values) && step > low)!;
  const inside = steps.filter((step) => step >= low && step <= high);
  const decades = inside.filter((step) => Number.isInteger(Math.log10(step)));
  const place = (value: number): number => start + (Math.log(value / low) / Math.log(high / low)) * (end - start);
  return { ticks: inside.length <= 9 ? inside : decades, place };
}

function gridLine(at: number, direction: "x" | "y", tick: number): string {
  const text = tick >= 1 ? tick.toLocaleString("en") : String(tick);
  const where = round(at);
  return direction === "x"
    ? `<line class="grid" x1="${where}" x2="${where}" y1="${PLOT.top}" y2="${PLOT.bottom}"/><text x="${where}" y="${PLOT.bottom + 20}" text-anchor="middle">${text}</text>`
    : `<line class="grid" x1="${PLOT.left}" x2="${PLOT.right}" y1="${where}" y2="${where}"/><text x="${PLOT.left - 8}" y="${where + 4}" text-anchor="end">${text}</text>`;
}

function line(
  { points, derived = false, main = false }: Series,
  colour: string,
  across: Axis["place"],
  up: Axis["place"],
): string {
  const places = points.map(({ x, y }) => ({ x: round(across(x)), y: round(up(y)) }));
  const path = places.map((place) => `${place.x},${place.y}`).join(" ");
  const dashes = derived ? ` stroke-dasharray="5 4"` : "";
  const dots = derived ? [] : places.map((place) => `<circle cx="${place.x}" cy="${place.y}" r="${main ? 4 : 3}"/>`);
  return `<g fill="${colour}"><polyline points="${path}" fill="none" stroke="${colour}" stroke-width="${main ? 3 : 1.7}"${dashes}/>${dots.join("")}</g>`;
}

/** The names at the right ends of the lines, moved apart where they would lie on one another. */
function labels(
  series: readonly Series[],
  colourOf: (series: Series) => string,
  across: Axis["place"],
  up: Axis["place"],
): string {
  const ends = series
    .map((one) => ({ series: one, end: one.points.at(-1)! }))
    .map((one) => ({ ...one, x: across(one.end.x), y: up(one.end.y), at: up(one.end.y) }))
    .sort((a, b) => a.y - b.y);
  ends.forEach((label, i) => (label.at = Math.max(label.at, (ends[i - 1]?.at ?? -Infinity) + LABEL_GAP)));
  const over = Math.max(0, (ends.at(-1)?.at ?? 0) - PLOT.bottom);
  return ends
    .map(({ series, x, y, at }) => {
      const colour = colourOf(series);
      const leader = `<line x1="${round(x) + 5}" y1="${round(y)}" x2="${PLOT.right + 12}" y2="${round(at - over)}" stroke="${colour}" stroke-opacity="0.5"/>`;
      const weight = series.main ? ` font-weight="600"` : "";
      return `${leader}<text x="${PLOT.right + 16}" y="${round(at - over) + 4}" style="fill:${colour}"${weight}>${escape(series.name)}</text>`;
    })
    .join("\n");
}

const round = (value: number): number => Math.round(value * 10) / 10;

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
