// The step lines of demand and in flight on the axis of the waterfall, the gap between shaded.

const STEPS_HEIGHT = 132;
const STEPS_TOP = 10;
const STEPS_BASE = STEPS_HEIGHT - 8;

const stepLines = () => DATA.steps[view.pid ?? "all"] || DATA.steps.all;

/** The index of the last step at or before a time, -1 before the first. */
function stepAt(line, ns) {
  let [low, high] = [-1, line.time.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (line.time[middle] <= ns) low = middle;
    else high = middle - 1;
  }
  return low;
}

const levelAt = (line, ns) => {
  const k = stepAt(line, ns);
  return k < 0 ? 0 : line.count[k];
};

/**
 * The line as [x, count] corners in sight, up to the end of the trace. Of the steps within one pixel only the highest and
 * the last are kept: more cannot be seen, and a hundred thousand of them would cost a frame.
 */
function corners(line) {
  const points = [[plotLeft(), levelAt(line, view.from)]];
  let pixel = -1;
  const until = Math.min(view.to, DATA.trace.duration_ns);
  const { time } = line;
  for (let k = stepAt(line, view.from) + 1; k < time.length && time[k] < until; k += 1) {
    const x = xOf(time[k]);
    const count = line.count[k];
    const last = points[points.length - 1];
    if (Math.floor(x * 2) === pixel && points.length > 2) {
      const peak = points[points.length - 2];
      if (count > peak[1]) peak[1] = count;
      last[1] = count;
    } else {
      pixel = Math.floor(x * 2);
      points.push([x, count], [x, count]);
    }
  }
  points.push([Math.max(xOf(until), points[points.length - 1][0]), points[points.length - 1][1]]);
  return points;
}

const highest = (line) => line.count.reduce((most, n) => Math.max(most, n), 0);
const peaks = new Map();

const highestOf = (line) => {
  if (!peaks.has(line)) peaks.set(line, highest(line));
  return peaks.get(line);
};

/** The top of the scale: the greatest demand of these lines ever, so that zooming leaves it. */
function scaleTop(lines) {
  return Math.max(1, highestOf(lines.demand), highestOf(lines.in_flight));
}

function drawSteps() {
  const ctx = brushFor(byId("steps"), layout.width, STEPS_HEIGHT);
  const lines = stepLines();
  const top = scaleTop(lines);
  const yOf = (n) => STEPS_BASE - (n / top) * (STEPS_BASE - STEPS_TOP);
  drawGround(ctx, STEPS_BASE);
  drawScale(ctx, top, yOf);
  const [wanted, open] = [corners(lines.demand), corners(lines.in_flight)];
  fillBetween(ctx, wanted, open, yOf);
  strokeSteps(ctx, wanted, yOf, colours.demand, [5, 3]);
  strokeSteps(ctx, open, yOf, colours.flight, []);
  drawPointer(ctx, STEPS_BASE);
  nameSteps(lines);
}

function drawScale(ctx, top, yOf) {
  ctx.textBaseline = "middle";
  for (const n of [0, top]) {
    ctx.fillStyle = colours.line;
    ctx.fillRect(plotLeft(), Math.round(yOf(n)), plotWidth(), 1);
    ctx.fillStyle = colours.muted;
    // Left of the plot where there is a gutter, else right of it.
    ctx.textAlign = plotLeft() ? "right" : "left";
    ctx.fillText(thousands(n), plotLeft() ? plotLeft() - 6 : plotWidth() + 4, yOf(n));
  }
}

/** Follows the steps of a line; as [x, y] pairs with both corners of each step. */
function stairs(points, yOf) {
  return points.flatMap(([x, n], k) => [[x, yOf(points[Math.max(k - 1, 0)][1])], [x, yOf(n)]]);
}

function fillBetween(ctx, upper, lower, yOf) {
  const outline = [...stairs(upper, yOf), ...stairs(lower, yOf).reverse()];
  ctx.fillStyle = colours.gap;
  ctx.beginPath();
  outline.forEach(([x, y], k) => (k ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  ctx.fill();
}

function strokeSteps(ctx, points, yOf, colour, dash) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.5;
  ctx.setLineDash(dash);
  ctx.beginPath();
  stairs(points, yOf).forEach(([x, y], k) => (k ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.lineWidth = 1;
}

/** Says whose lines they are, how high they go, and what they are at the pointer. */
function nameSteps(lines) {
  const { demand, in_flight: flight } = lines;
  const all = DATA.pids.length > 1 ? "all processes shown" : processName(DATA.pids[0]);
  const at = view.cursor;
  const parts = [
    `Demand (dashed) of ${view.pid == null ? all : processName(view.pid)}: at most ${thousands(highestOf(demand))}.`,
    `In flight (solid): at most ${thousands(highestOf(flight))}.`,
    "Shaded: wanted and not let through.",
    HELD_IN_USER.size ? "What is held in user code is no demand before its call." : "",
    demand.exact && flight.exact ? "" : "Where there are too many steps, each stretch shows its highest count.",
    at == null ? "" : `At ${instant(at)}: ${levelAt(demand, at)} wanted, ${levelAt(flight, at)} in flight.`,
  ];
  byId("steps-note").textContent = parts.filter(Boolean).join(" ");
}

