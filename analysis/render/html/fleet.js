// The tables stand without this: it sorts them by a click on a heading, and changes the theme.

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");
let chosen = "";

function applyTheme() {
  const theme = chosen || (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  button.textContent = theme === "dark" ? "Light theme" : "Dark theme";
}

button.addEventListener("click", () => {
  chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  applyTheme();
});
dark.addEventListener("change", applyTheme);
button.hidden = false;
applyTheme();

/** The value that a cell is sorted by: what it was made of, or else its text. */
function valueOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
}

function sortBy(table, heading) {
  const numeric = heading.classList.contains("number");
  const now = heading.getAttribute("aria-sort");
  const order = now ? (now === "ascending" ? -1 : 1) : numeric ? -1 : 1;
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
  const column = heading.cellIndex;
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
  rows.sort(([a], [b]) => (a < b ? -order : a > b ? order : 0));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sorted")) {
  for (const heading of table.tHead.rows[0].cells) {
    const sorter = document.createElement("button");
    sorter.type = "button";
    sorter.append(heading.textContent);
    heading.replaceChildren(sorter);
    sorter.addEventListener("click", () => sortBy(table, heading));
  }
}
