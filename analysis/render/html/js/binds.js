// The table of binds and listens: those that failed, and with a button those that worked, too.

const BIND_PAGE = 50;
const BIND_COLUMNS = [
  ["At", "number"],
  ["Process", ""],
  ["User", ""],
  ["Call", ""],
  ["Asked for", ""],
  ["Result", ""],
  ["Who has the port", "wide"],
];
let bindPage = 0;
let withWorked = false;

function showBinds() {
  const { failed, worked } = DATA.binds;
  byId("binds").hidden = !(failed + worked);
  if (!(failed + worked)) return;
  withWorked = !failed;
  const box = table("Binds and listens", BIND_COLUMNS, el("tbody"));
  const pager = el(
    "div",
    { class: "pager" },
    el("button", { type: "button", id: "binds-previous", onclick: () => turnBinds(-1) }, "Previous"),
    el("button", { type: "button", id: "binds-next", onclick: () => turnBinds(1) }, "Next"),
    el("span", { id: "binds-of", role: "status", class: "muted" }),
  );
  byId("binds").append(
    el("p", { id: "binds-note", class: "muted" }, bindsNote()),
    failed && worked ? el("div", { class: "controls" }, workedButton()) : "",
    box,
    pager,
  );
  fillBinds();
}

function bindsNote() {
  const { failed, worked, rows } = DATA.binds;
  const all = count(failed + worked, "call of bind and listen", "calls of bind and listen");
  const shown = rows.length < failed + worked ? ` This page has the first ${thousands(rows.length)} of them.` : "";
  const advice = rows.some((row) => row.finding != null) ? " What to do about a failure stands in its finding above." : "";
  return `${all}: ${thousands(failed)} failed, ${thousands(worked)} worked.${shown}${advice}`;
}

function workedButton() {
  const text = `Show the ${thousands(DATA.binds.worked)} that worked, too`;
  return el("button", { type: "button", id: "binds-worked", "aria-pressed": "false", onclick: toggleWorked }, text);
}

function toggleWorked(event) {
  withWorked = !withWorked;
  event.currentTarget.setAttribute("aria-pressed", String(withWorked));
  bindPage = 0;
  fillBinds();
}

function turnBinds(by) {
  bindPage += by;
  fillBinds();
}

function fillBinds() {
  const rows = DATA.binds.rows.filter((row) => withWorked || row.error);
  const first = bindPage * BIND_PAGE;
  const shown = rows.slice(first, first + BIND_PAGE);
  byId("binds").querySelector("tbody").replaceChildren(...shown.map(bindRow));
  byId("binds").querySelector(".pager").hidden = rows.length <= BIND_PAGE;
  byId("binds-previous").disabled = bindPage === 0;
  byId("binds-next").disabled = first + BIND_PAGE >= rows.length;
  byId("binds-of").textContent = `${thousands(first + 1)} to ${thousands(first + shown.length)} of ${count(rows.length, "call")}`;
}

function bindRow(row) {
  const under = (text) => (text ? el("span", { class: "source" }, text) : "");
  return tableRow(
    BIND_COLUMNS,
    [
      instant(row.at),
      row.process,
      row.user,
      row.call,
      el("span", {}, row.asked, under(row.options && row.options.replace(/,/g, ", "))),
      row.error ? el("span", {}, el("strong", {}, row.error), under(row.said)) : workedText(row),
      el("span", {}, ...row.held.map((text) => el("span", { class: "line" }, text)), findingLink(row)),
    ],
    { class: row.error ? "failed" : null },
  );
}

const workedText = (row) => (row.got ? `ok, port ${row.got}` : "ok");

/** A way to the finding about a call that failed, which says what to do. */
function findingLink(row) {
  if (row.finding == null) return "";
  const about = { "aria-label": `What to do: ${row.error} of ${row.asked}` };
  return el("button", { type: "button", class: "link", ...about, onclick: () => goToFinding(row.finding) }, "What to do");
}

/** Goes to a finding, out of the fold that it may be in, and opens its advice. */
function goToFinding(number) {
  const article = byId(`finding-${number}`);
  article.closest("details")?.setAttribute("open", "");
  article.querySelector(".folds details")?.setAttribute("open", "");
  article.scrollIntoView({ block: "start" });
  article.focus({ preventScroll: true });
}
