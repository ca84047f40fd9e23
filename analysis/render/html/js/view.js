// What is looked at: the stretch of time, the filter, the attempt. Changes end in one redraw.

const SHORTEST_NS = 1000;
const WHOLE = padded(DATA.extent[0], DATA.extent[1]);

const view = {
  from: WHOLE[0],
  to: WHOLE[1],
  pid: DATA.focus,
  destination: null,
  outcome: null,
  tall: false,
  selected: -1,
  hovered: -1,
  cursor: null, // ns under the pointer
  brush: null, // [from, to] while a stretch is being dragged
};

/** A little air on both sides, so that the first and the last bar are seen to begin and end. */
function padded(from, to) {
  const air = Math.max((to - from) * 0.02, SHORTEST_NS);
  return [from - air, to + air];
}

/** Looks at [from, to], kept within the whole trace and never shorter than a microsecond. */
function lookAt(from, to) {
  const whole = WHOLE[1] - WHOLE[0];
  const length = Math.min(Math.max(to - from, SHORTEST_NS), whole);
  const begin = Math.min(Math.max((from + to - length) / 2, WHOLE[0]), WHOLE[1] - length);
  view.from = begin;
  view.to = begin + length;
  redraw("time");
}

/** The end of the attempt chosen if it is in sight, else the middle. */
function anchor() {
  const end = A.over[view.selected];
  return end >= view.from && end <= view.to ? end : (view.from + view.to) / 2;
}

/** Zooms by a factor (less than 1: closer) around a point in time. */
function zoom(factor, around = anchor()) {
  lookAt(around - (around - view.from) * factor, around + (view.to - around) * factor);
}

/** Moves by a share of what is looked at. */
function pan(share) {
  const length = view.to - view.from;
  const step = Math.min(Math.max(share * length, WHOLE[0] - view.from), WHOLE[1] - view.to);
  lookAt(view.from + step, view.to + step);
}

const wholeTrace = () => lookAt(...WHOLE);

/** Sets part of the filter and shows it in its list. */
function filterBy(part, value) {
  view[part] = value;
  byId(`by-${FILTERS[part]}`).value = value ?? "";
  redraw("filter");
}

const FILTERS = { pid: "process", destination: "destination", outcome: "outcome" };

/** Selects an attempt (-1: none) and brings it into sight. */
function select(i) {
  view.selected = i;
  if (i >= 0 && !matches(i)) ["pid", "destination", "outcome"].forEach((part) => filterBy(part, null));
  if (i >= 0 && !touchesView(i)) {
    const air = Math.max(A.over[i] - firstOf(i), (view.to - view.from) / 2);
    lookAt(firstOf(i) - air / 2, A.over[i] + air / 2);
  }
  redraw("selection");
}

const matches = (i) =>
  (view.pid == null || A.pid[i] === view.pid) &&
  (view.destination == null || A.destination[i] === view.destination) &&
  (view.outcome == null || A.outcome[i] === view.outcome);

const touchesView = (i) => firstOf(i) <= view.to && A.over[i] >= view.from;

let pending = new Set();
let scheduled = false;
let paint = () => {};

/** Asks for one redraw in the next frame, whatever else changes until then. */
function redraw(what) {
  pending.add(what);
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    const changed = pending;
    pending = new Set();
    scheduled = false;
    paint(changed);
  });
}
