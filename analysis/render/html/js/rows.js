// Which rows the waterfall has and where each stands. Pixels are those of CSS.

const MARGIN = 22; // to the right of the plot, for the letter of what ends there
const TALL = 24;
const TALL_NARROW = 36; // there the label stands above the bar
const NARROW = 640;
const HEADER = 26;

let matching = []; // attempts that pass the filter, in ORDER
let layout = { items: [], height: 0, row: TALL, gutter: 0, width: 0, narrow: false, at: new Map() };

function refilter() {
  matching = ORDER.filter(matches);
}

/** The height that the rows may take before they scroll. */
const room = () => Math.max(320, Math.min(800, Math.round(window.innerHeight * 0.64)));

/** The height of a row: as much as fits, legible for a few dozen, and no less than 4. */
function rowHeight(number, narrow) {
  const tall = narrow ? TALL_NARROW : TALL;
  const least = number > 60 ? 4 : narrow ? tall : 16;
  return view.tall ? tall : Math.min(tall, Math.max(room() / Math.max(1, number), least));
}

/** Lays out what is in sight: a heading for each process if there are several, a row an attempt. */
function relayout(width) {
  const inView = matching.filter(touchesView);
  const narrow = width < NARROW;
  const row = rowHeight(inView.length, narrow);
  const gutter = narrow || row < 11 ? 0 : Math.min(272, Math.round(width * 0.3));
  const headed = view.pid == null && DATA.pids.length > 1;
  layout = { ...placed(inView, row, headed), row, gutter, width, narrow };
}

function placed(attempts, row, headed) {
  const items = [];
  const at = new Map();
  let y = 0;
  let pid = null;
  for (const i of attempts) {
    if (headed && A.pid[i] !== pid) {
      pid = A.pid[i];
      items.push({ i: -1, pid, y, height: HEADER });
      y += HEADER;
    }
    items.push({ i, pid: A.pid[i], y, height: row });
    at.set(i, y);
    y += row;
  }
  return { items, at, height: y };
}

/** The index of the item at a height, by halving. */
function itemAt(y) {
  let low = 0;
  let high = layout.items.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (layout.items[middle].y <= y) low = middle;
    else high = middle - 1;
  }
  return low;
}

const plotLeft = () => layout.gutter;
const plotWidth = () => Math.max(1, layout.width - layout.gutter - MARGIN);
const xOf = (ns) => plotLeft() + ((ns - view.from) / (view.to - view.from)) * plotWidth();
const timeAt = (x) => view.from + ((x - plotLeft()) / plotWidth()) * (view.to - view.from);
const clampX = (x) => Math.min(Math.max(x, plotLeft()), plotLeft() + plotWidth());
