// The axis of time that all three canvases share, and the canvases themselves.

const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';
const AXIS_HEIGHT = 22;

/** Sizes a canvas for the screen's pixels and returns its cleared context, in CSS pixels. */
function brushFor(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  ctx.font = FONT;
  return ctx;
}

/** The times of round numbers in sight, about one in `room` pixels: {step, times}. */
function ticks(room = 96) {
  const rough = ((view.to - view.from) / plotWidth()) * room;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const times = [];
  for (let n = Math.ceil(view.from / step); n * step <= view.to; n += 1) times.push(n * step);
  return { step, times };
}

/** Seconds with as many decimals as the step needs. */
function tickLabel(ns, step) {
  const digits = Math.max(0, -Math.floor(Math.log10(step / NS) + 1e-9));
  return `${(ns / NS).toFixed(digits)} s`;
}

function drawAxis() {
  const ctx = brushFor(byId("axis"), layout.width, AXIS_HEIGHT);
  const { step, times } = ticks();
  ctx.fillStyle = colours.muted;
  ctx.textBaseline = "middle";
  for (const time of times) {
    const label = tickLabel(time, step);
    const half = ctx.measureText(label).width / 2;
    const x = Math.max(xOf(time), plotLeft() + half);
    ctx.textAlign = "center";
    ctx.fillText(label, x, AXIS_HEIGHT / 2);
  }
}

/** Draws what lies behind all marks: lines of time, stretches of loss. */
function drawGround(ctx, height) {
  ctx.fillStyle = colours.line;
  for (const time of ticks().times) ctx.fillRect(Math.round(xOf(time)), 0, 1, height);
  ctx.fillStyle = colours.loss;
  for (const [first, last] of DATA.losses) {
    const [x0, x1] = [clampX(xOf(first)), clampX(xOf(last))];
    if (last >= view.from && first <= view.to) ctx.fillRect(x0, 0, Math.max(2, x1 - x0), height);
  }
}

/** Draws what lies above all marks: the pointer's time and the stretch being dragged. */
function drawPointer(ctx, height) {
  if (view.brush) {
    const [x0, x1] = view.brush.map((ns) => clampX(xOf(ns)));
    ctx.globalAlpha = 0.16;
    ctx.fillStyle = colours.accent;
    ctx.fillRect(Math.min(x0, x1), 0, Math.abs(x1 - x0), height);
    ctx.globalAlpha = 1;
  }
  if (view.cursor == null) return;
  ctx.fillStyle = colours["strong-line"];
  ctx.fillRect(Math.round(xOf(view.cursor)), 0, 1, height);
}
