// The keyboard on the waterfall, and the buttons above it.

const ZOOM_STEP = 0.6;

const CHART_KEYS = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  PageDown: () => step(20),
  PageUp: () => step(-20),
  Home: () => choose(0),
  End: () => choose(Infinity),
  ArrowLeft: () => pan(-0.2),
  ArrowRight: () => pan(0.2),
  "+": () => zoom(ZOOM_STEP),
  "=": () => zoom(ZOOM_STEP),
  "-": () => zoom(1 / ZOOM_STEP),
  0: wholeTrace,
  Enter: () => view.selected >= 0 && openDetails(view.selected, byId("rows")),
  Escape: () => select(-1),
};

const inRows = () => layout.items.map((item) => item.i).filter((i) => i >= 0);

/** Goes so many rows on from the attempt chosen; from none, to the first or the last. */
function step(by) {
  const now = inRows().indexOf(view.selected);
  choose(now >= 0 ? now + by : by > 0 ? 0 : Infinity);
}

/** Chooses the attempt in this row, or in the one nearest to it, and says it. */
function choose(row) {
  const attempts = inRows();
  if (!attempts.length) return;
  const at = Math.min(Math.max(row, 0), attempts.length - 1);
  view.hovered = -1;
  select(attempts[at]);
  keepInSight(attempts[at]);
  byId("spoken").textContent = spokenOf(attempts[at]);
}

function keepInSight(i) {
  const box = byId("rows");
  const y = layout.at.get(i);
  if (y < box.scrollTop) box.scrollTop = y - HEADER;
  else if (y + layout.row > box.scrollTop + box.clientHeight) box.scrollTop = y + layout.row - box.clientHeight;
}

function startKeys() {
  byId("rows").addEventListener("keydown", (event) => {
    const act = CHART_KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  byId("details").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !cameFrom) return;
    const back = cameFrom.isConnected ? cameFrom : byId("rows");
    back.focus();
  });
  byId("zoom-in").addEventListener("click", () => zoom(ZOOM_STEP));
  byId("zoom-out").addEventListener("click", () => zoom(1 / ZOOM_STEP));
  byId("zoom-reset").addEventListener("click", wholeTrace);
  byId("tall").addEventListener("click", () => {
    view.tall = !view.tall;
    byId("tall").setAttribute("aria-pressed", String(view.tall));
    redraw("filter");
  });
}
