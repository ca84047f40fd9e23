// The table of attempts: the same rows as the waterfall, a page of them at a time.

const PAGE = 50;
const ATTEMPT_COLUMNS = [
  ["At", "number"],
  ["Process", ""],
  ["Thread", ""],
  ["Destination", ""],
  ["Outcome", ""],
  ["Before SYN", "number"],
  ["SYN to end", "number"],
];
let attemptPage = 0;
let tableRows = [];

/** How long an attempt took to its SYN, ns; null if nothing is known of it. */
function beforeSyn(i) {
  const all = holdsOf(i).reduce((sum, [, from, to]) => sum + to - from, 0);
  return all || null;
}

function startAttempts() {
  const body = el("tbody", { onclick: rowClicked, onkeydown: rowKey });
  const box = table("Attempts", ATTEMPT_COLUMNS, body);
  box.removeAttribute("tabindex"); // its rows take the focus
  const pager = el(
    "div",
    { class: "pager" },
    el("button", { type: "button", id: "previous", onclick: () => turn(-1) }, "Previous"),
    el("button", { type: "button", id: "next", onclick: () => turn(1) }, "Next"),
    el("span", { id: "page-of", role: "status", class: "muted" }),
  );
  byId("attempts").append(box, pager);
}

function turn(by) {
  attemptPage += by;
  showAttemptTable();
}

/** Shows the attempts in sight by time, from the page that is open. */
function showAttemptTable() {
  tableRows = layout.items.map((item) => item.i).filter((i) => i >= 0).sort((a, b) => a - b);
  const pages = Math.max(1, Math.ceil(tableRows.length / PAGE));
  attemptPage = Math.min(Math.max(attemptPage, 0), pages - 1);
  const first = attemptPage * PAGE;
  const shown = tableRows.slice(first, first + PAGE);
  byId("attempts").querySelector("tbody").replaceChildren(...shown.map(attemptRow));
  byId("previous").disabled = attemptPage === 0;
  byId("next").disabled = attemptPage === pages - 1;
  byId("page-of").textContent = tableRows.length
    ? `${thousands(first + 1)} to ${thousands(first + shown.length)} of ${count(tableRows.length, "attempt")} in sight`
    : "No attempt in sight";
}

function attemptRow(i, k) {
  const outcome = el("span", {}, badge(outcomeOf(i)), ` ${outcomeText(i)}`);
  const flight = flightOf(i);
  const cells = [
    instant(A.begin[i]),
    processName(A.pid[i]),
    threadOf(i),
    destinationOf(i),
    outcome,
    duration(beforeSyn(i)),
    flight ? duration(flight[1] - flight[0]) : "",
  ];
  const chosen = i === view.selected;
  const inOrder = tableRows.includes(view.selected) ? chosen : k === 0;
  return tableRow(ATTEMPT_COLUMNS, cells, {
    tabindex: inOrder ? "0" : "-1",
    "data-attempt": i,
    "aria-selected": String(chosen),
  });
}

function markTableRow() {
  for (const row of byId("attempts").querySelectorAll("tbody tr")) {
    row.setAttribute("aria-selected", String(Number(row.dataset.attempt) === view.selected));
  }
}

function rowClicked(event) {
  const row = event.target.closest("tr");
  if (row) openDetails(Number(row.dataset.attempt), row);
}

/** Arrow keys go from row to row, Enter opens the details. */
function rowKey(event) {
  const row = event.target.closest("tr");
  const to = {
    ArrowDown: row.nextElementSibling,
    ArrowUp: row.previousElementSibling,
    Home: row.parentElement.firstElementChild,
    End: row.parentElement.lastElementChild,
  }[event.key];
  if (event.key === "Enter" || event.key === " ") openDetails(Number(row.dataset.attempt), row);
  else if (to) moveFocus(row, to);
  else return;
  event.preventDefault();
}

function moveFocus(from, to) {
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

let cameFrom = null;

/** Selects an attempt and goes to its details; Escape there leads back to `origin`. */
function openDetails(i, origin) {
  cameFrom = origin;
  select(i);
  view.hovered = -1;
  showDetails();
  byId("chart").scrollIntoView({ block: "start" });
  byId("details").focus({ preventScroll: !isStacked() });
}

/** Tells whether the details stand below the chart, not beside it. */
const isStacked = () => byId("details").offsetTop > byId("rows").offsetTop + 40;
