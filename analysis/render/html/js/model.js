// The block of data, and what follows from it alone. Attempts are told apart by index.

const DATA = JSON.parse(byId("data").textContent);
const A = DATA.attempts;
const N = A.attempt_id.length;

// One letter an outcome, so that colour is never needed to tell them apart.
const LETTERS = {
  established: "E",
  refused: "R",
  timed_out: "T",
  unreachable: "U",
  denied: "D",
  no_port: "N",
  reset: "X",
  cancelled: "C",
  failed: "F",
  pending: "P",
  unknown: "?",
};

const outcomeOf = (i) => DATA.outcome_names[A.outcome[i]];
const threadOf = (i) => A.threads[A.comm[i]];
const destinationOf = (i) => A.destinations[A.destination[i]];

const PROCESSES = new Map(DATA.processes.map((row) => [row.pid, row]));

/** `website (pid 12)`, in a container `website (pid 12, web[7])`; the numbers alone without a name. */
function processName(pid) {
  const known = PROCESSES.get(pid);
  const numbers = known && known.inside ? `pid ${pid}, ${known.inside}` : `pid ${pid}`;
  return known && known.comm ? `${known.comm} (${numbers})` : numbers;
}

// By process, those that matter first, and then by time, as the data are.
const RANK = new Map(DATA.pids.map((pid, rank) => [pid, rank]));
const ORDER = [...A.pid.keys()].sort((a, b) => RANK.get(A.pid[a]) - RANK.get(A.pid[b]) || a - b);
const INDEX = new Map(A.attempt_id.map((id, i) => [id, i]));

// Attempts that a finding says waited in user code: elsewhere a sleep before the call is no hold.
const HELD_IN_USER = new Set(
  DATA.findings
    .filter((finding) => finding.place === "user")
    .flatMap((finding) => finding.victims.map((party) => INDEX.get(party.attempt_id))),
);

/** The stretches before the SYN in which an attempt stood still: [place, from, to]. */
function holdsOf(i) {
  const [sleep, gate, call, syn] = [A.sleep_ns[i], A.gate_ns[i], A.call_ns[i], A.syn_ns[i]];
  const found = [];
  if (sleep != null && gate == null && call != null && HELD_IN_USER.has(i)) found.push(["user", sleep, call]);
  if (gate != null) found.push(["gate", gate, call ?? syn ?? A.over[i]]);
  if (call != null) found.push(["connect", call, syn ?? A.over[i]]);
  return found.filter(([, from, to]) => to > from);
}

/** The sleep before the call that need not be a hold: [from, to], or null. */
function sleepOf(i) {
  const there = A.sleep_ns[i] != null && A.call_ns[i] != null && !HELD_IN_USER.has(i);
  return there && A.gate_ns[i] == null ? [A.sleep_ns[i], A.call_ns[i]] : null;
}

/** When the attempt was on its way: [SYN, over], or null where no SYN was sent. */
const flightOf = (i) => (A.syn_ns[i] == null ? null : [A.syn_ns[i], Math.max(A.over[i], A.syn_ns[i])]);

/** The first instant that is drawn of an attempt. */
const firstOf = (i) => (HELD_IN_USER.has(i) ? Math.min(A.sleep_ns[i], A.begin[i]) : A.begin[i]);

/** When the attempt went on from where it was held. */
const releaseOf = (i) => A.syn_ns[i] ?? A.call_ns[i] ?? A.over[i];

const LINKS = DATA.links
  .map(([victim, blocker, ns]) => ({ victim: INDEX.get(victim), blocker: INDEX.get(blocker), ns }))
  .filter((link) => link.victim != null && link.blocker != null);

/** Groups links by one of their ends. */
function linksBy(end) {
  const groups = new Map();
  for (const link of LINKS) groups.set(link[end], [...(groups.get(link[end]) || []), link]);
  return groups;
}

const WAITED_FOR = linksBy("victim");
const HELD_UP = linksBy("blocker");
