// Light or dark: as the system says until the button is pressed. Canvases ask here for colours.

const darkSystem = window.matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = "";
let colours = {};

const currentTheme = () => chosenTheme || (darkSystem.matches ? "dark" : "light");

function applyTheme() {
  const theme = currentTheme();
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light theme" : "Dark theme";
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["ground", "text", "muted", "line", "strong-line", "accent", "row", "demand"];
  colours = Object.fromEntries([...names, "flight", "gap", "loss", "link", "on-outcome"].map((n) => [n, read(n)]));
  for (const outcome of DATA.outcome_names) colours[outcome] = read(`o-${outcome}`);
}

function startTheme(changed) {
  const again = () => {
    applyTheme();
    changed();
  };
  byId("theme").addEventListener("click", () => {
    chosenTheme = currentTheme() === "dark" ? "light" : "dark";
    again();
  });
  darkSystem.addEventListener("change", again);
  applyTheme();
}
