// What was found, in words, and how far to trust it.

function showHeading() {
  const { trace } = DATA;
  byId("title").textContent = DATA.title || "Connection attempts";
  if (DATA.title) document.title = `${DATA.title} \u2013 porttrace`;
  const about = [
    DATA.title.includes(trace.host) ? "" : trace.host,
    trace.start,
    count(trace.attempts, "attempt"),
    trace.binds ? count(trace.binds, "bind or listen", "binds and listens") : "",
    count(trace.processes, "process", "processes"),
    trace.kernel && `Linux ${trace.kernel}`,
    trace.filter && `filter: ${trace.filter}`,
  ];
  byId("about").textContent = about.filter(Boolean).join(" \u00b7 ");
}

const OPEN_FINDINGS = 5; // the gravest stand first; what only informs is folded from here on

function showVerdict() {
  const found = DATA.findings;
  if (!found.length && !DATA.remarks.length) {
    return byId("verdict").append(el("p", { class: "verdict" }, DATA.nothing_found));
  }
  const open = found.filter((finding, k) => k < OPEN_FINDINGS || finding.severity !== "info");
  const rest = found.slice(open.length).map((finding, k) => findingNode(finding, open.length + k));
  byId("verdict").append(...open.map((finding, k) => findingNode(finding, k)));
  if (rest.length) byId("verdict").append(moreFindings(rest));
  if (DATA.remarks.length) byId("verdict").append(remarksNode());
}

/** Waits that no finding explains: nothing may be called right above them. */
function remarksNode() {
  const items = DATA.remarks.map((sentence) => el("li", {}, sentence));
  const title = el("h2", { class: "headline" }, el("strong", {}, "Not explained"));
  return el("article", { class: "finding unexplained" }, title, el("ul", { class: "items" }, ...items));
}

function moreFindings(nodes) {
  const title = el("summary", {}, count(nodes.length, "more finding"));
  return el("details", { class: "more" }, title, el("div", { class: "rest" }, ...nodes));
}

function findingNode(finding, number) {
  const severity = finding.severity[0].toUpperCase() + finding.severity.slice(1);
  const sure = `${finding.level} (confidence ${finding.confidence.toFixed(2)})`;
  return el(
    "article",
    { class: `finding ${finding.severity}`, id: `finding-${number}`, tabindex: "-1" },
    el("h2", { class: "headline" }, el("strong", {}, severity), ` \u00b7 ${finding.rule} \u00b7 ${sure}`),
    el("p", { class: "summary" }, finding.summary),
    factsOf(finding),
    showButton(finding),
    el("div", { class: "folds" }, ...foldsOf(finding)),
  );
}

function factsOf(finding) {
  const facts = ["place", "scope", "slots", "mechanism"].map((name) => [name, finding[name]]);
  const known = facts.filter(([, value]) => value != null);
  const pairs = known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value))));
  return known.length ? el("dl", { class: "facts" }, ...pairs) : null;
}

/** A button that shows the finding's attempts, where the page has any of them. */
function showButton(finding) {
  const parties = [...finding.victims, ...finding.blockers].map((party) => INDEX.get(party.attempt_id));
  const here = parties.filter((i) => i != null);
  if (!here.length) return null;
  return el("button", { type: "button", class: "show", onclick: () => showAttempts(here) }, "Show in the chart");
}

function showAttempts(attempts) {
  const pids = new Set(attempts.map((i) => A.pid[i]));
  filterBy("pid", pids.size === 1 ? A.pid[attempts[0]] : null);
  filterBy("destination", null);
  filterBy("outcome", null);
  const from = attempts.reduce((least, i) => Math.min(least, firstOf(i)), Infinity);
  const to = attempts.reduce((most, i) => Math.max(most, A.over[i]), -Infinity);
  lookAt(...padded(from, to));
  select(attempts[0]);
  byId("chart").scrollIntoView();
  byId("rows").focus({ preventScroll: true });
}

function foldsOf(finding) {
  const { hypotheses = [], scopes = [], not_looked = [], settle } = finding.evidence;
  const advice = finding.advice.map((text) => el("li", {}, text));
  return [
    fold("What to do", advice),
    fold("Suspects: what can interpose there (facts; none is proof)", finding.suspects.map(suspectNode)),
    fold("Not looked at on this host", not_looked.map((text) => el("li", {}, text))),
    fold("Other explanations that were tested", hypotheses.map(hypothesisNode)),
    fold("Whom it counts", scopes.map(scopeNode)),
    fold("Numbers behind it", numbersOf(finding.evidence)),
    fold("What would settle it", settle ? [el("li", {}, settle)] : []),
  ];
}

function fold(title, items) {
  if (!items.length) return null;
  const number = items.length > 1 ? ` (${items.length})` : "";
  return el("details", {}, el("summary", {}, title + number), el("ul", { class: "items" }, ...items));
}

const suspectNode = (suspect) => el("li", {}, suspect.what, el("span", { class: "source" }, suspect.source));

const hypothesisNode = (tested) =>
  el("li", {}, `${tested.name}: `, el("strong", {}, tested.verdict), `. ${tested.why}`);

const scopeNode = (scope) => el("li", {}, `${scope.scope}: `, el("strong", {}, scope.verdict), `. ${scope.why}`);

function numbersOf(evidence) {
  const plain = Object.entries(evidence).filter(([, value]) => typeof value === "number");
  return plain.map(([name, value]) => el("li", {}, `${words(name)}: ${String(+value.toPrecision(4))}`));
}

function showTrust() {
  const trust = DATA.trust;
  const lost = trust.lost_events ? `${thousands(trust.lost_events)} lost` : "none lost";
  const unknown = trust.attempts_unknown ? `, ${count(trust.attempts_unknown, "attempt")} with an unknown end` : "";
  const line = el(
    "p",
    {},
    el("strong", {}, "Trust: "),
    `traced ${trust.duration_s.toFixed(1)} s, ${count(trust.events, "event")}, `,
    trust.lost_events ? el("strong", {}, lost) : lost,
    `${unknown}; ${trust.mode} mode, ${trust.wire ? "wire probe on" : "no wire probe"}.`,
  );
  const notes = trust.notes.map((note) => el("li", {}, note));
  byId("trust").classList.toggle("incomplete", !trust.complete);
  byId("trust").replaceChildren(line, ...(notes.length ? [el("ul", {}, ...notes)] : []));
}
