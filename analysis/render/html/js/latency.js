// How long answers took, on an axis of powers of ten, with the rungs at which Linux sends again.

const PER_DECADE = 10;
const LATENCY = { height: 190, top: 34, base: 160, left: 40, right: 8 };
const ANSWERS = { established: "answered", refused: "refused", reset: "refused", unreachable: "refused" };
// A share is told only from so many attempts on that some lie beyond it.
const SHARES = [[0.5, 2, "half"], [0.95, 20, "95%"], [0.99, 100, "99%"]];
const KINDS = ["answered", "refused", "silent"];
const KIND_WORDS = ["established", "refused", "without an answer"];

/** SYN to end of the attempts that pass the filter, by kind. Seeded ones began before the trace. */
function latencies() {
  const found = { answered: [], refused: [], silent: [] };
  const seeded = DATA.origin_names.indexOf("seeded");
  for (const i of matching) {
    const flight = flightOf(i);
    if (!flight || A.origin[i] === seeded || outcomeOf(i) === "unknown") continue;
    found[ANSWERS[outcomeOf(i)] || "silent"].push(Math.max(flight[1] - flight[0], 1));
  }
  return found;
}

function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

function showLatency() {
  const found = latencies();
  const answered = [...found.answered].sort((a, b) => a - b);
  byId("latency-note").textContent = latencyNote(found, answered);
  const all = KINDS.flatMap((kind) => found[kind]);
  byId("latency-plot").replaceChildren(...(all.length ? [latencyPlot(found, all)] : []));
}

function latencyNote(found, answered) {
  const n = answered.length + found.refused.length + found.silent.length;
  if (!n) return "No attempt that passes the filter sent a SYN.";
  const parts = [];
  if (answered.length) {
    const told = SHARES.filter(([, least]) => answered.length >= least);
    const within = told.map(([share, , name]) => `${name} within ${duration(quantile(answered, share))}, `);
    const all = answered.length > 1 ? `: ${within.join("")}the slowest in` : " in";
    const who = count(answered.length, "attempt");
    parts.push(`${who} established${all} ${duration(answered[answered.length - 1])}.`);
  }
  if (found.refused.length) parts.push(`${count(found.refused.length, "attempt")} refused.`);
  if (found.silent.length) {
    const silent = count(found.silent.length, "attempt");
    parts.push(`${silent} without an answer, shown as long as they lasted.`);
  }
  const own = DATA.ladder.known ? "this host's" : "Linux's usual";
  return `${parts.join(" ")} Dashed: ${own} times at which an unanswered SYN is sent again.`;
}

/** The edges of the axis: whole powers of ten around all values and the first rung. */
function decades(all) {
  const low = all.reduce((least, ns) => Math.min(least, ns), NS);
  const top = all.reduce((most, ns) => Math.max(most, ns), NS * 1.2);
  return [Math.floor(Math.log10(low)), Math.ceil(Math.log10(top * 1.05) * 2) / 2];
}

function latencyPlot(found, all) {
  const width = Math.max(280, byId("latency-plot").clientWidth);
  const [low, high] = decades(all);
  const decade = (width - LATENCY.left - LATENCY.right) / (high - low);
  const x = (ns) => LATENCY.left + (Math.log10(ns) - low) * decade;
  const plot = svg("svg", {
    viewBox: `0 0 ${width} ${LATENCY.height}`,
    height: LATENCY.height,
    role: "img",
    "aria-labelledby": "latency-title latency-note",
  });
  drawDecades(plot, low, high, x, width);
  drawRungs(plot, 10 ** high, x);
  drawBins(plot, found, low, x);
  return plot;
}

function drawDecades(plot, low, high, x, width) {
  const { base, left, right } = LATENCY;
  plot.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: base + 0.5, y2: base + 0.5 }));
  const every = (x(10) - x(1)) < 52 ? 2 : 1;
  for (let power = low; power <= high; power += 1) {
    const at = x(10 ** power);
    plot.append(svg("line", { class: "axis", x1: at, x2: at, y1: base, y2: base + 5 }));
    if ((power - low) % every) continue;
    const anchor = power === low ? "start" : at > width - 30 ? "end" : "middle";
    plot.append(svg("text", { x: at, y: base + 19, "text-anchor": anchor }, powerLabel(power)));
  }
}

/** 10 ms for 7: a power of ten of ns in its unit. */
function powerLabel(power) {
  const unit = Math.min(Math.floor(power / 3), 3);
  return `${10 ** (power - 3 * unit)} ${["ns", "\u00b5s", "ms", "s"][unit]}`;
}

function drawRungs(plot, most, x) {
  const { rungs_s: rungs, give_up_s: end } = DATA.ladder;
  let free = 0;
  for (const seconds of [...rungs, end].filter((s) => s * NS <= most)) {
    const at = x(seconds * NS);
    const last = seconds === end;
    const kind = last ? "give-up" : "rung";
    plot.append(svg("line", { class: kind, x1: at, x2: at, y1: LATENCY.top - 12, y2: LATENCY.base }));
    const label = last ? `gives up ${seconds} s` : `${seconds} s`;
    const room = label.length * 3.6;
    if (at - room < free) continue;
    plot.append(svg("text", { x: at, y: LATENCY.top - 18, "text-anchor": "middle" }, label));
    free = at + room + 2;
  }
}

function drawBins(plot, found, low, x) {
  const bins = new Map();
  KINDS.forEach((kind, k) => {
    for (const ns of found[kind]) {
      const bin = Math.floor((Math.log10(ns) - low) * PER_DECADE + 1e-9);
      if (!bins.has(bin)) bins.set(bin, [0, 0, 0]);
      bins.get(bin)[k] += 1;
    }
  });
  const most = [...bins.values()].reduce((top, n) => Math.max(top, n[0] + n[1] + n[2]), 1);
  plot.append(svg("text", { x: LATENCY.left - 6, y: LATENCY.top + 4, "text-anchor": "end" }, thousands(most)));
  for (const [bin, counts] of bins) drawBin(plot, bin, counts, most, low, x);
}

function drawBin(plot, bin, counts, most, low, x) {
  const [from, to] = [10 ** (low + bin / PER_DECADE), 10 ** (low + (bin + 1) / PER_DECADE)];
  let y = LATENCY.base;
  counts.forEach((n, k) => {
    if (!n) return;
    const height = Math.max(2, (n / most) * (LATENCY.base - LATENCY.top));
    y -= height;
    const width = Math.max(1, x(to) - x(from) - 1);
    const bar = svg("rect", { class: KINDS[k], x: x(from) + 0.5, y, width, height });
    const range = `${duration(from)} to ${duration(to)}`;
    bar.append(svg("title", {}, `${range}: ${count(n, "attempt")} ${KIND_WORDS[k]}`));
    plot.append(bar);
  });
}
