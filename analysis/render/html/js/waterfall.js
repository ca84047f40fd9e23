// The waterfall: a row an attempt, pale while held, solid in SYN_SENT, a letter for its end.
// Only the rows in sight are drawn, onto a canvas that stays put while the rows scroll under it.

const LETTERED = 11; // height of a bar from which a letter fits
const BADGE = 14;
const BESIDE = 5; // between a bar's end and its letter, so that the letter adds no length

function drawWaterfall() {
  const box = byId("rows");
  const height = layout.items.length ? Math.min(room(), Math.ceil(layout.height)) : 56;
  box.style.height = `${height + 2}px`;
  byId("spacer").style.height = `${Math.max(0, Math.ceil(layout.height) - height)}px`;
  const ctx = brushFor(byId("waterfall"), layout.width, height);
  const top = box.scrollTop;
  drawGround(ctx, height);
  if (!layout.items.length) return drawEmpty(ctx, height);
  const inSight = itemsBetween(top, top + height);
  drawBand(ctx, view.selected, top, 1);
  if (view.hovered !== view.selected) drawBand(ctx, view.hovered, top, 0.6);
  for (const item of inSight) if (item.i >= 0) drawBars(ctx, item, top);
  for (const item of inSight) drawLabels(ctx, item, top);
  drawLinks(ctx, top, height);
  for (const item of inSight) drawName(ctx, item, top);
  drawPointer(ctx, height);
}

function drawEmpty(ctx, height) {
  ctx.fillStyle = colours.muted;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText("No attempt here passes the filter", layout.width / 2, height / 2);
}

function itemsBetween(top, bottom) {
  const items = [];
  for (let k = itemAt(top); k < layout.items.length && layout.items[k].y < bottom; k += 1) {
    items.push(layout.items[k]);
  }
  return items;
}

function drawBand(ctx, i, top, strength) {
  if (!layout.at.has(i)) return;
  ctx.globalAlpha = strength;
  ctx.fillStyle = colours.row;
  ctx.fillRect(0, layout.at.get(i) - top, layout.width, Math.max(layout.row, 2));
  ctx.globalAlpha = 1;
}

/** Where the bar of a row stands: [top, height], from the top of the row. */
function barBox(row) {
  if (layout.narrow && row >= 30) return [row - 17, 13];
  const gap = row >= 20 ? 5 : row >= 10 ? 3 : row >= 5 ? 1 : 0;
  return [Math.floor(gap / 2), Math.max(1.5, row - gap)];
}

/** The left edge and the width in sight of [from, to], at least `least`; null out of sight. */
function barSpan(from, to, least) {
  if (to < view.from || from > view.to) return null;
  const x0 = clampX(xOf(from));
  return [x0, Math.max(clampX(xOf(to)) - x0, least)];
}

function drawBars(ctx, item, scrolled) {
  const [above, height] = barBox(item.height);
  const y = item.y - scrolled + above;
  const colour = colours[outcomeOf(item.i)];
  drawSleep(ctx, sleepOf(item.i), y + height / 2);
  for (const [place, from, to] of holdsOf(item.i)) {
    // What is shorter than a pixel is no hold to look at.
    const span = barSpan(from, to, 0);
    if (span && span[1] >= 0.5) drawHold(ctx, span, y, height, colour, `${place} ${duration(to - from)}`);
  }
  const flight = flightOf(item.i);
  const span = flight && barSpan(...flight, height < LETTERED ? 3 : 2);
  if (!span) return;
  ctx.fillStyle = colour;
  ctx.fillRect(span[0], y, span[1], height);
  drawInside(ctx, span, y, height, colours["on-outcome"], `SYN_SENT ${duration(flight[1] - flight[0])}`);
}

function drawSleep(ctx, sleep, y) {
  const span = sleep && barSpan(...sleep, 0);
  if (!span || span[1] < 2 || layout.row < LETTERED) return;
  ctx.fillStyle = colours["strong-line"];
  ctx.fillRect(span[0], Math.round(y), span[1], 1);
}

function drawHold(ctx, [x, width], y, height, colour, label) {
  ctx.fillStyle = colour;
  ctx.globalAlpha = 0.2;
  ctx.fillRect(x, y, width, height);
  ctx.globalAlpha = 1;
  if (height >= 6 && width >= 3) {
    ctx.strokeStyle = colour;
    ctx.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  }
  drawInside(ctx, [x, width], y, height, colours.text, label);
}

function drawInside(ctx, [x, width], y, height, colour, label) {
  if (height < 13 || ctx.measureText(label).width + 30 > width) return;
  ctx.fillStyle = colour;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillText(label, x + 6, y + height / 2 + 0.5);
}

function drawLabels(ctx, item, scrolled) {
  const y = item.y - scrolled;
  if (item.i < 0) return drawHeading(ctx, item.pid, y);
  const [above, height] = barBox(item.height);
  if (height >= LETTERED) drawBadge(ctx, item.i, y + above, height);
  if (layout.gutter) drawGutter(ctx, item.i, y + item.height / 2);
}

/** Names an attempt above its bar, on a rim of the ground, since links may cross it. */
function drawName(ctx, item, scrolled) {
  if (item.i < 0 || !layout.narrow || item.height < 30) return;
  const name = fitting(ctx, `${threadOf(item.i)}  ${destinationOf(item.i)}`, layout.width - 8);
  const y = item.y - scrolled + 10;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.strokeStyle = colours.ground;
  ctx.lineWidth = 3;
  ctx.strokeText(name, 2, y);
  ctx.lineWidth = 1;
  ctx.fillStyle = colours.text;
  ctx.fillText(name, 2, y);
}

function drawHeading(ctx, pid, y) {
  ctx.fillStyle = colours.ground;
  ctx.fillRect(0, y, layout.width, HEADER);
  ctx.fillStyle = colours.text;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.font = `600 ${FONT}`;
  ctx.fillText(fitting(ctx, processName(pid), layout.width - 8), 2, y + HEADER / 2 + 2);
  ctx.font = FONT;
}

/** Where the letter stands: beside the end of the attempt, or of what is in sight of it. */
function badgeX(i) {
  if (firstOf(i) > view.to || A.over[i] < view.from) return null;
  return clampX(xOf(A.over[i])) + BESIDE;
}

function drawBadge(ctx, i, y, height) {
  const x = badgeX(i);
  if (x == null) return;
  const outcome = outcomeOf(i);
  ctx.fillStyle = colours[outcome];
  ctx.fillRect(x, y, BADGE, height);
  ctx.fillStyle = colours["on-outcome"];
  ctx.font = `700 ${FONT.replace("12px", "11px")}`;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText(LETTERS[outcome], x + BADGE / 2, y + height / 2 + 0.5);
  ctx.font = FONT;
}

function drawGutter(ctx, i, y) {
  const half = Math.round(layout.gutter * 0.4);
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillStyle = colours.muted;
  ctx.fillText(fitting(ctx, threadOf(i), half - 8), 4, y);
  ctx.fillStyle = colours.text;
  ctx.fillText(fitting(ctx, destinationOf(i), layout.gutter - half - 10, true), half, y);
}

const fittings = new Map();

/** The text cut to a width, at its end or, for an address, at its start; remembered. */
function fitting(ctx, text, width, keepEnd = false) {
  const key = `${ctx.font} ${Math.floor(width)} ${keepEnd} ${text}`;
  if (!fittings.has(key)) {
    if (fittings.size > 5000) fittings.clear();
    fittings.set(key, cut(ctx, text, width, keepEnd));
  }
  return fittings.get(key);
}

function cut(ctx, text, width, keepEnd) {
  if (ctx.measureText(text).width <= width) return text;
  const characters = [...text];
  let shown = "";
  do {
    if (keepEnd) characters.shift();
    else characters.pop();
    shown = keepEnd ? `\u2026${characters.join("")}` : `${characters.join("")}\u2026`;
  } while (characters.length && ctx.measureText(shown).width > width);
  return shown;
}

/** The links in sight: from the end of the blocker down or up to where its victim went on. */
function visibleLinks() {
  const middle = (i) => layout.at.get(i) + barBox(layout.row)[0] + barBox(layout.row)[1] / 2;
  const found = [];
  for (const [victim, links] of WAITED_FOR) {
    const { blocker } = links[0];
    if (!layout.at.has(victim) || !layout.at.has(blocker)) continue;
    const from = { x: xOf(A.over[blocker]), y: middle(blocker) };
    const to = { x: xOf(releaseOf(victim)), y: middle(victim) };
    found.push({ victim, blocker, from, to });
  }
  return found;
}

function drawLinks(ctx, top, height) {
  for (const { victim, blocker, from, to } of visibleLinks()) {
    const [y0, y1] = [from.y - top, to.y - top];
    if (Math.max(y0, y1) < 0 || Math.min(y0, y1) > height) continue;
    const marked = [victim, blocker].some((i) => i === view.hovered || i === view.selected);
    ctx.strokeStyle = marked ? colours.accent : colours.link;
    ctx.lineWidth = marked ? 2 : 1;
    ctx.beginPath();
    ctx.moveTo(clampX(from.x), y0);
    ctx.lineTo(clampX(from.x), y1);
    ctx.lineTo(clampX(to.x), y1);
    ctx.stroke();
    ctx.lineWidth = 1;
    if (to.x !== clampX(to.x)) continue;
    ctx.fillStyle = ctx.strokeStyle;
    ctx.beginPath();
    ctx.arc(to.x, y1, marked ? 3.5 : 2.5, 0, 2 * Math.PI);
    ctx.fill();
  }
}
