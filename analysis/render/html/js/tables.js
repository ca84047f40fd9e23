// Tables that stay as they are: processes, and the parties of each finding.

const PROCESS_COLUMNS = [
  ["Process", ""],
  ["User", ""],
  ["Attempts", "number"],
  ["Established", "number"],
  ["Failed", "number"],
  ["Pending", "number"],
  ["Most in flight", "number"],
  ["Most wanted", "number"],
  ["Longest hold", "number"],
  ["Median", "number"],
  ["95%", "number"],
  ["99%", "number"],
];

function showProcesses() {
  const body = el("tbody", {}, ...DATA.processes.map(processRow));
  const more = DATA.processes_left_out;
  byId("processes").append(
    el("p", { class: "muted" }, `Of the whole trace: ${outcomeCounts()}. Median, 95% and 99%: from SYN to answer.`),
    table("Processes", PROCESS_COLUMNS, body),
    more ? el("p", { class: "muted" }, `and ${count(more, "process", "processes")} with fewer attempts`) : "",
  );
}

const outcomeCounts = () =>
  Object.entries(DATA.outcomes).map(([name, n]) => `${thousands(n)} ${words(name)}`).join(", ");

function processRow(row) {
  const established = row.established || 0;
  const waiting = row.pending || 0;
  const failed = row.attempts - established - waiting - (row.unknown || 0);
  const numbers = [row.attempts, established, failed, waiting, row.max_in_flight, row.max_demand];
  const times = [row.worst_wait_ns || null, row.p50_ns, row.p95_ns, row.p99_ns];
  const cells = [processName(row.pid), row.user, ...numbers.map(thousands), ...times.map(duration)];
  return tableRow(PROCESS_COLUMNS, cells);
}

const PARTY_COLUMNS = [
  ["Wait", "number"],
  ["Destination", ""],
  ["Thread", ""],
  ["Process", ""],
  ["Outcome", ""],
  ["At", "number"],
];

function showParties() {
  const seen = new Map();
  const found = DATA.findings.flatMap((finding) => [
    partyTable(seen, `Waited: ${finding.rule}`, "Held", finding.victims),
    partyTable(seen, `In front of them: ${finding.rule}`, "Blocked for", finding.blockers),
  ]);
  const tables = found.filter(Boolean);
  if (tables.length) byId("parties").append(el("h2", {}, "Who waited, and for whom"), ...tables);
}

/** A table of parties; the very same ones are not listed a second time. */
function partyTable(seen, title, wait, parties) {
  if (!parties.length) return null;
  const same = JSON.stringify(parties);
  const before = seen.get(same);
  const heading = el("h3", {}, title);
  const again = `The same attempts as under \u201c${before}\u201d.`;
  if (before) return el("div", { class: "party" }, heading, el("p", { class: "muted" }, again));
  seen.set(same, title);
  const columns = [[wait, "number"], ...PARTY_COLUMNS.slice(1)];
  const body = el("tbody", {}, ...parties.map((party) => partyRow(columns, party)));
  return el("div", { class: "party" }, heading, table(title, columns, body));
}

function partyRow(columns, party) {
  const i = INDEX.get(party.attempt_id);
  const open = (event) => openDetails(i, event.currentTarget);
  const link = () => el("button", { type: "button", class: "link", onclick: open }, party.destination);
  return tableRow(columns, [
    duration(party.wait_s * NS),
    i == null ? party.destination : link(),
    party.comm,
    processName(party.pid),
    el("span", {}, badge(party.outcome), ` ${words(party.outcome)}`),
    instant(party.start_ns),
  ]);
}
