// Puts the parts together. Frame times are kept so that tests can measure them: a test zooms,
// moves and filters 10,000 attempts in headless Chromium and reads `window.porttrace.frames`.

const SETTLE_MS = 120; // the table follows when zooming has come to rest
const LOW_ROWS = " The rows are low: zoom in or press Tall rows for names and letters.";
const frames = [];
let settled = 0;

paint = (changed) => {
  const began = performance.now();
  if (changed.has("filter")) refilter();
  if (["filter", "time", "size"].some((what) => changed.has(what))) {
    relayout(byId("rows").clientWidth);
    showCounts();
    settle();
  }
  drawAxis();
  drawWaterfall();
  if (!(changed.size === 1 && changed.has("scroll"))) drawSteps();
  showDetails();
  if (changed.has("selection")) markTableRow();
  if (changed.has("filter") || changed.has("size")) showLatency();
  frames.push(performance.now() - began);
  if (frames.length > 1000) frames.shift();
};

function settle() {
  clearTimeout(settled);
  settled = setTimeout(showAttemptTable, SETTLE_MS);
}

function showCounts() {
  const rows = layout.at.size;
  const of = rows === N ? count(N, "attempt") : `${thousands(rows)} of ${count(N, "attempt")}`;
  const low = rows && layout.row < LETTERED ? LOW_ROWS : "";
  byId("shown").textContent = `${of} in sight, ${duration(view.to - view.from)} of time.${low}`;
  byId("tall").hidden = !view.tall && layout.row >= TALL;
  byId("rows").setAttribute("aria-label", `Waterfall: ${byId("shown").textContent}`);
}

/** Fills a list of the filter: [value, text, count] each, with one entry for all of them. */
function fillFilter(part, all, options) {
  const list = byId(`by-${FILTERS[part]}`);
  const entries = options.map(([value, text, n]) => el("option", { value }, `${text} \u2013 ${thousands(n)}`));
  list.replaceChildren(el("option", { value: "" }, all), ...entries);
  list.value = view[part] ?? "";
  list.addEventListener("change", () => filterBy(part, list.value === "" ? null : Number(list.value)));
}

/** Counts the values of a column, most frequent first. */
function tally(column) {
  const counts = new Map();
  for (const value of column) counts.set(value, (counts.get(value) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function startFilters() {
  fillFilter("pid", "All processes", tally(A.pid).map(([pid, n]) => [pid, processName(pid), n]));
  fillFilter("destination", "All destinations", tally(A.destination).map(([d, n]) => [d, A.destinations[d], n]));
  fillFilter("outcome", "All outcomes", tally(A.outcome).map(([o, n]) => [o, words(DATA.outcome_names[o]), n]));
}

function showLegend() {
  const swatch = (kind, text) => el("li", {}, el("span", { class: `swatch ${kind}` }), text);
  const outcomes = tally(A.outcome).map(([o]) => DATA.outcome_names[o]);
  byId("legend").append(
    swatch("held", "held before the SYN"),
    swatch("flight", "in SYN_SENT"),
    A.sleep_ns.some((time) => time != null) ? swatch("asleep", "asleep before the call") : "",
    DATA.losses.length ? swatch("lost", "events lost") : "",
    ...outcomes.map((name) => el("li", {}, badge(name), words(name))),
  );
}

function showLeftOut() {
  byId("left-out").hidden = !DATA.left_out.length;
  byId("left-out").textContent = DATA.left_out.join(" ");
}

/** What tests read: copies, never the page's own state. */
function expose() {
  const bars = () =>
    layout.items.filter((item) => item.i >= 0).map(({ i, y, height }) => ({
      id: A.attempt_id[i],
      y,
      height,
      outcome: outcomeOf(i),
      holds: holdsOf(i).map(([place, from, to]) => ({ place, span: barSpan(from, to, 0) })),
      flight: flightOf(i) && barSpan(...flightOf(i), 0),
    }));
  window.porttrace = Object.freeze({
    bars,
    links: () => visibleLinks().map((l) => ({ victim: A.attempt_id[l.victim], blocker: A.attempt_id[l.blocker] })),
    view: () => ({ ...view }),
    plot: () => ({ left: plotLeft(), width: plotWidth(), scrolls: layout.height > room() }),
    frames: () => [...frames],
  });
}

/** With no attempt to draw, words say all there is, and perhaps a table of binds. */
function showNothing() {
  if (!byId("binds").hidden) {
    byId("skip").textContent = "Skip to the binds and listens";
    byId("skip").setAttribute("href", "#binds");
  } else byId("skip").hidden = true;
  for (const id of ["chart", "latency", "processes", "attempts"]) byId(id).hidden = true;
  startTheme(() => {});
}

function start() {
  expose();
  showHeading();
  showVerdict();
  showTrust();
  showBinds();
  if (!N) return showNothing();
  showLeftOut();
  startFilters();
  startTheme(() => redraw("filter"));
  showLegend();
  startAttempts();
  showProcesses();
  showParties();
  startPointer();
  startKeys();
  if (DATA.window) lookAt(...padded(...DATA.window));
  new ResizeObserver(() => redraw("size")).observe(byId("rows"));
  redraw("filter");
}

start();
