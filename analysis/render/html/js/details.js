// One attempt in full: its marks, its waits, for whom it waited and whom it held up.

const MARKS = [
  ["sleep_ns", "fell asleep"],
  ["gate_ns", "stopped at gate"],
  ["call_ns", "connect began"],
  ["syn_ns", "SYN_SENT"],
  ["end_ns", "over"],
  ["return_ns", "connect returned"],
];

function showDetails() {
  const i = view.hovered >= 0 ? view.hovered : view.selected;
  const box = byId("details");
  if (Number(box.dataset.attempt ?? -2) === i) return;
  box.dataset.attempt = i;
  box.replaceChildren(...(i < 0 ? noDetails() : detailNodes(i)));
}

const CHOOSE = "Point at an attempt, or choose one with the arrow keys, to see its marks and waits.";
const noDetails = () => [el("p", { class: "muted" }, CHOOSE)];

function detailNodes(i) {
  return [
    el("h3", {}, destinationOf(i)),
    el("p", {}, badge(outcomeOf(i)), ` ${outcomeText(i)}`),
    el("h4", {}, "Who"),
    terms(whoOf(i)),
    el("h4", {}, "Waits"),
    terms(waitsOf(i)),
    el("h4", {}, "Marks"),
    terms(MARKS.map(([mark, name]) => [name, instant(A[mark][i])]), { class: "marks" }),
    ...relatives("Waited for", WAITED_FOR.get(i), "blocker"),
    ...relatives("Held up", HELD_UP.get(i), "victim"),
    ...framesOf(i),
  ];
}

/** How it ended, with the errno's name where there is one. */
function outcomeText(i) {
  const code = A.errno[i];
  const error = code ? ` (${DATA.errno_names[code] || `errno ${code}`})` : "";
  return words(outcomeOf(i)) + error;
}

function whoOf(i) {
  return [
    ["thread", threadOf(i)],
    ["tid", A.tid[i] ? String(A.tid[i]) : ""],
    ["process", processName(A.pid[i])],
    ["container", (PROCESSES.get(A.pid[i]) || {}).container],
    ["source port", A.sport[i] ? String(A.sport[i]) : ""],
    ["blocking", { 1: "yes", 0: "no" }[A.blocking[i]]],
    ["origin", DATA.origin_names[A.origin[i]]],
    ["SYNs sent again", A.retransmits[i] ? String(A.retransmits[i]) : ""],
    ["in flight then", `${A.in_flight_at_start[i]} of ${A.demand_at_start[i]} wanted`],
    ["complete", A.complete[i] ? "" : "no: events were lost"],
    ["number", String(A.attempt_id[i])],
  ];
}

const WHERE = { user: "in user code", gate: "at the gate", connect: "in connect" };

function waitsOf(i) {
  const sleep = sleepOf(i);
  const flight = flightOf(i);
  const open = outcomeOf(i) === "pending" ? " so far" : "";
  return [
    ["asleep before", sleep && duration(sleep[1] - sleep[0])],
    ...holdsOf(i).map(([place, from, to]) => [WHERE[place], duration(to - from) + (flight ? "" : open)]),
    ["in SYN_SENT", flight && duration(flight[1] - flight[0]) + open],
  ];
}

function relatives(title, links, end) {
  if (!links) return [];
  const items = links.slice(0, 8).map((link) => {
    const i = link[end];
    const text = `${threadOf(i)} \u2192 ${destinationOf(i)}`;
    const button = el("button", { type: "button", class: "link", onclick: () => select(i) }, text);
    return el("li", {}, button, ` ${duration(link.ns)}`);
  });
  const more = links.length - items.length;
  return [el("h4", {}, title), el("ul", {}, ...items, more > 0 ? el("li", {}, `and ${more} more`) : null)];
}

function framesOf(i) {
  const frames = A.stacks[A.gate_stack[i]];
  if (!frames) return [];
  const list = el("ul", { class: "frames" }, ...frames.map((name) => el("li", {}, name)));
  return [el("details", {}, el("summary", {}, "Kernel stack of the hold"), list)];
}

/** One attempt as a sentence, for ears. */
function spokenOf(i) {
  const waits = waitsOf(i).filter(([, value]) => value).map(([name, value]) => `${name} ${value}`);
  return `${threadOf(i)} to ${destinationOf(i)}, ${outcomeText(i)}, at ${duration(A.begin[i])}: ${waits.join(", ")}`;
}
