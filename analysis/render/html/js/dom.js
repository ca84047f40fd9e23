// Elements out of plain values. Text goes in as text nodes only, so no name can become markup.

const byId = (id) => document.getElementById(id);

/** Makes an element; `props` are attributes, or "on..." listeners; `children` texts or nodes. */
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null && child !== ""));
  return node;
}

/** Makes an SVG element with attributes and perhaps a text. */
function svg(tag, attributes, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

/** Makes a list of terms and values; pairs without a value are left out. */
function terms(pairs, props = {}) {
  const known = pairs.filter(([, value]) => value != null && value !== "");
  return el("dl", props, ...known.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
}

/** Makes the letter of an outcome on its colour. */
function badge(outcome) {
  const node = el("span", { class: "letter", "aria-hidden": "true" }, LETTERS[outcome]);
  node.style.setProperty("--outcome", `var(--o-${outcome})`);
  return node;
}

/** Makes a table that scrolls within itself. A column is [heading, class]; a row holds cells. */
function table(name, columns, body) {
  const heads = columns.map(([text, kind]) => el("th", { scope: "col", class: kind }, text));
  return el(
    "div",
    { class: "scroller", role: "region", tabindex: "0", "aria-label": name },
    el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body),
  );
}

/** Makes a row of cells under these columns. */
function tableRow(columns, cells, props = {}) {
  return el("tr", props, ...cells.map((cell, i) => el("td", { class: columns[i][1] }, cell)));
}
