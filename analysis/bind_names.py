"""How calls of bind(2) and listen(2), their answers and who holds a port are called in sentences.

Names that processes gave themselves are passed on raw: whoever prints them escapes them.
"""

import errno
import os

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.frees import or_later
from porttrace.analysis.model import BindCall, BindOption, Holder, Looked, Trace
from porttrace.tracer.words import endpoint

TCP, UDP = 6, 17
NOT_LOOKED_UP = "not looked up: too many at once"
_PROTOCOLS = {TCP: "tcp", UDP: "udp"}


def protocol(row: np.void) -> str:
    """Return `tcp` or `udp` of one `BIND` row, "" when not known."""
    return _PROTOCOLS.get(int(row["protocol"]), "")


def address(row: np.void) -> str:
    """Return the address asked for as `0.0.0.0` or `2001:db8::1`, "" where none is known.

    A connect(2) from a socket that was never bound asked for none.
    """
    packed = row["addr"].tobytes()
    asked = row["call"] != BindCall.autobind or any(packed)
    return names.plain_address(packed) if row["family"] and asked else ""


def local(row: np.void) -> str:
    """Return what was asked for as `0.0.0.0:80` or `[::]:80`; port 0 is any."""
    if not address(row):
        return "?"
    return f"{names.address(row['addr'].tobytes())}:{int(row['port_asked'])}"


def call(row: np.void) -> str:
    """Return `bind`, `listen` or `autobind`."""
    return BindCall(int(row["call"])).name


def error(row: np.void) -> str:
    """Return the name of the errno, "" where the call got what it wanted."""
    number = int(row["errno"])
    return errno.errorcode.get(number, str(number)) if number else ""


def error_words(row: np.void) -> str:
    """Return what the errno says, in lower case: `address already in use`."""
    return os.strerror(int(row["errno"])).lower()


def options(row: np.void) -> str | None:
    """Return the options that were on, with commas; None where nothing is known of them."""
    if not row["options_known"]:
        return None
    number = int(row["options"] & row["options_known"])
    return ",".join(option.name or "" for option in BindOption if number & option)


def option(row: np.void, which: BindOption) -> bool | None:
    """Return whether an option was on, None where that is not known."""
    return bool(row["options"] & which) if row["options_known"] & which else None


def user(trace: Trace, row: np.void) -> str:
    """Return the name of the user who made the call, "" where it is not known.

    /proc may have said another one of the process: workers change theirs after they are forked.
    """
    uid = int(row["uid"])
    own = trace.processes.get(int(row["pid"]))
    if own and own.uid == uid:
        return own.user
    return next((each.user for each in trace.processes.values() if each.uid == uid), "")


def netns(row: np.void, found: Looked | None) -> int:
    """Return the number of the network namespace of a call, 0 where nobody knows it.

    As the kernel recorded it; without BTF as it was read when the call was looked into (`found`).
    Never that of the process at another time: it may have moved, and ports of two namespaces have
    nothing to do with each other.
    """
    if row["netns"]:
        return int(row["netns"])
    if found is None or found.facts.get("netns_by"):
        return 0
    number = found.facts.get("netns", 0)
    return number if isinstance(number, int) else 0


def key(row: np.void) -> tuple[int, int]:
    """Return what the row is called in `Trace.looked`."""
    return int(row["time_ns"]), int(row["tid"])


def looked(trace: Trace, row: np.void) -> Looked | None:
    """Return what was looked up after the call failed, None where nobody looked."""
    return trace.looked.get(key(row))


def not_shown(row: np.void, found: Looked | None) -> str:
    """Return why no holder of the port can be shown, "" where there is one or none is wanted."""
    if row["errno"] != errno.EADDRINUSE:
        return ""
    if not row["port_asked"]:
        return range_taken(found)
    if found is None:
        return NOT_LOOKED_UP
    if not found.holders:
        return f"whoever held it was gone {names.duration(found.after_s * 1e9)} later"
    return ""


def range_taken(found: Looked | None) -> str:
    """Return that no port was left for a call that asked for any, and by whom they were taken."""
    facts = found.facts if found else {}
    first, last = (fact(found, name, 0) for name in ("range_first", "range_last"))
    ends = f" ({first}-{last})" if first else ""
    reserved = facts.get("reserved")
    besides = f" that is not reserved ({reserved})" if reserved else ""
    said = f"every port of net.ipv4.ip_local_port_range{ends}{besides} was taken for this address"
    if found is None or not facts.get("takers"):
        return said
    later = names.duration(found.after_s * 1e9)
    return f"{said}; {later} later {facts['taken']} of {last - first + 1} were: {facts['takers']}"


def fact(found: Looked | None, name: str, unknown: int = -1) -> int:
    """Return a number that was looked up, `unknown` where it was not."""
    value = found.facts.get(name, unknown) if found else unknown
    return value if isinstance(value, int) else unknown


_HOLDS = {
    "listener": "listens on {local}",
    "client": "has it for its connection to {remote}",
    "accepted": "has a connection from {remote} on {local}",
    "bound": "is bound to {local} and does not listen",
    "time_wait": "a closed connection to {remote} in TIME_WAIT",
    "closing": "a closing connection to {remote} in {state}",
    "udp": "receives on {local}",
    "descriptor": "a socket on {local} whose descriptor is on its way between processes",
    "kernel": "a socket of the kernel itself on {local}",
    "namespace": "a socket on {local} in another network namespace",
}


def holder(each: Holder) -> str:
    """Return one holder in words: `nginx (pid 12, user www) listens on 0.0.0.0:80`."""
    text = _HOLDS.get(each.kind, "")
    if not text:
        return each.why or "nobody can be shown"
    local = endpoint(each.address, each.port)
    said = text.format(local=local, remote=each.remote or "?", state=each.state)
    if each.frees_in_s >= 0:
        said += f", free in {names.duration(each.frees_in_s * 1e9)}{or_later(each)}"
    elif each.age_s >= 0:
        said += f", for {names.duration(each.age_s * 1e9)} now"
    if not each.pid:
        return said
    return f"{owner(each)} {'has ' if said.startswith('a ') else ''}{said}"


def owner(each: Holder) -> str:
    """Return who has the socket: `nginx (pid 12, user www, container web)`."""
    inside = f"container {each.container}" if each.container else ""
    user = f"user {each.user}" if each.user else f"uid {each.uid}" if each.uid >= 0 else ""
    about = ", ".join(filter(None, (f"pid {each.pid}" if each.pid else "", user, inside)))
    return f"{each.comm or 'a process'} ({about})"
