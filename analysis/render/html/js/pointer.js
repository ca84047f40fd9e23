// Pointer and wheel over the charts: point, choose, drag a stretch, zoom and move.

const DRAG = 5; // pixels from which a press is a drag

/** The pointer's place within a canvas. */
function within(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

function attemptAt(y) {
  const down = y + byId("rows").scrollTop;
  if (!layout.items.length || down < 0 || down >= layout.height) return -1;
  return layout.items[itemAt(down)].i;
}

function startPointer() {
  for (const id of ["waterfall", "steps"]) {
    const canvas = byId(id);
    canvas.addEventListener("pointermove", (event) => pointed(event, canvas));
    canvas.addEventListener("pointerleave", left);
    canvas.addEventListener("pointerdown", (event) => pressed(event, canvas));
    canvas.addEventListener("wheel", (event) => wheeled(event, canvas), { passive: false });
  }
  byId("rows").addEventListener("scroll", () => redraw("scroll"));
}

function pointed(event, canvas) {
  const { x, y } = within(event, canvas);
  view.cursor = x >= plotLeft() ? timeAt(clampX(x)) : null;
  view.hovered = canvas.id === "waterfall" && !view.brush ? attemptAt(y) : -1;
  redraw("pointer");
}

function left() {
  view.cursor = null;
  view.hovered = -1;
  redraw("pointer");
}

/** Follows a press until it is let go: a click chooses, a drag zooms to the stretch. */
function pressed(event, canvas) {
  if (event.button !== 0) return;
  const start = within(event, canvas);
  canvas.setPointerCapture(event.pointerId);
  const move = (moved) => {
    const { x } = within(moved, canvas);
    if (view.brush || Math.abs(x - start.x) >= DRAG) view.brush = [timeAt(clampX(start.x)), timeAt(clampX(x))];
  };
  const stop = (ended) => {
    canvas.removeEventListener("pointermove", move);
    canvas.removeEventListener("pointerup", stop);
    canvas.removeEventListener("pointercancel", stop);
    released(ended, canvas, start);
  };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", stop);
  canvas.addEventListener("pointercancel", stop);
}

function released(event, canvas, start) {
  const brush = view.brush;
  view.brush = null;
  if (event.type === "pointercancel") return redraw("pointer");
  if (brush && brush[0] !== brush[1]) lookAt(Math.min(...brush), Math.max(...brush));
  else if (canvas.id === "waterfall") select(attemptAt(start.y));
}

/** The wheel alone scrolls the rows or the page; with Ctrl it zooms, with Shift it moves. */
function wheeled(event, canvas) {
  if (event.ctrlKey || event.metaKey) {
    event.preventDefault();
    zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 200))), timeAt(clampX(within(event, canvas).x)));
  } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    event.preventDefault();
    pan((event.deltaX || event.deltaY) / plotWidth());
  }
}
