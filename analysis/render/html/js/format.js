// Numbers as people read them. Times are ns.

const NS = 1e9;

/** 5.20 s, 14 ms, 36 us: two or three digits that tell something. */
function duration(ns) {
  if (ns == null) return "";
  if (ns < 999.5) return `${Math.round(ns)} ns`;
  for (const [unit, name] of [[1e3, "\u00b5s"], [1e6, "ms"]]) {
    const value = ns / unit;
    if (value < 9.95) return `${value.toFixed(1)} ${name}`;
    if (value < 999.5) return `${value.toFixed(0)} ${name}`;
  }
  const seconds = ns / NS;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  return seconds < 99.95 ? `${seconds.toFixed(1)} s` : `${thousands(Math.round(seconds))} s`;
}

/** A point in time, seconds after the start, exact to the microsecond. */
const instant = (ns) => (ns == null ? "" : `${(ns / NS).toFixed(6)} s`);

/** 12345 as 12,345. */
const thousands = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");

/** 1 attempt, 2 attempts; a noun of its own plural is given both ways. */
function count(number, noun, plural = `${noun}s`) {
  return `${thousands(number)} ${number === 1 ? noun : plural}`;
}

/** timed_out as "timed out". */
const words = (name) => name.replace(/_/g, " ");
