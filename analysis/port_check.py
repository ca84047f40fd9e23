"""The ports that a host's services want, against what stands and what the host says: problems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from porttrace.analysis import sharing
from porttrace.analysis.frees import or_later
from porttrace.analysis.may_bind import Here, conflict
from porttrace.analysis.port_ranges import Ranges, at_risk, reserve_command
from porttrace.analysis.port_served import SERVES, is_its, is_verified, serving, unserved
from porttrace.analysis.sharing import Claim
from porttrace.tracer.facts import Holder
from porttrace.tracer.words import bracketed

_MOST_COMMAND = 80  # characters
_MOST_PIDS = 8  # of one socket are listed


@dataclass(frozen=True)
class Wanted:
    """A port that a service wants, as a file says it."""

    port: int
    protocol: str = "tcp"
    address: str = "0.0.0.0"
    owner: str = ""  # user, "" any
    uid: int = -1  # of the owner, -1: no such user, or any
    process: str = ""  # the service's name of a process, "" any
    name: str = ""
    reuseaddr: bool = True
    reuseport: bool = False
    v6only: bool = False
    capable: bool = False  # it gets CAP_NET_BIND_SERVICE: setcap, AmbientCapabilities=
    served: bool = False  # it has to run now
    line: int = 0

    def claim(self) -> Claim:
        """Return the bind that the service will make."""
        return Claim(self.protocol, self.address, self.port, self.v6only, self.reuseaddr,
                     self.reuseport, self.uid)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What is wrong with a wanted port, and what to do."""

    kind: str  # conflict, address, ...: docs/port-commands.md lists them
    what: str
    advice: str


@dataclass(frozen=True)
class Standing:
    """What a host says of one wanted port."""

    holders: Sequence[Holder]
    claims: Sequence[Claim]
    here: Here
    ephemeral: tuple[int, int]
    reserved: Ranges
    node_ports: tuple[int, int] | None = None
    within: str = ""  # what enters the network namespace, before a command; "" our own


def check(wanted: Wanted, others: Sequence[Wanted], standing: Standing) -> list[Problem]:
    """Return the problems of one wanted port; `others` are those that come before it."""
    return [
        *_duplicates(wanted, others),
        *_owner(wanted),
        *_conflict(wanted, standing),
        *_not_served(wanted, standing),
        *_unserved(wanted, standing),
        *_address(wanted, standing),
        *_privileged(wanted, standing),
        *_ephemeral(wanted, standing),
        *_node_port(wanted, standing),
    ]


def doubts(wanted: Wanted, standing: Standing) -> list[Problem]:
    """Return what could not be verified of a wanted port: it may be fine, or not."""
    mine = serving(wanted, standing.holders)
    if mine:
        return [_unverified(wanted, each) for each in mine if not is_verified(wanted, each)]
    verdict = conflict(wanted.claim(), standing.claims, "bind")
    if verdict.works is not None or not standing.holders:
        return []
    first = _first_in_doubt(standing.holders)
    return [
        Problem(
            "bind",
            f"held by {describe(first)}: {first.why}. {verdict.why}",
            _try(wanted, first, standing.within),
        )
    ]


def is_served(wanted: Wanted, holders: Sequence[Holder]) -> Holder | None:
    """Return the holder that is the wanted service itself, None where it does not run."""
    return next(iter(serving(wanted, holders)), None)


def unserved_state(wanted: Wanted, holders: Sequence[Holder]) -> str:
    """Return in words that the service does not run; by whom not, where others have the port."""
    whose = [f"process {wanted.process}"] if wanted.process else []
    whose += [f"user {wanted.owner}"] if wanted.owner else []
    if holders and whose:
        return f"not served by {' of '.join(whose)}"
    return "not served now"


def asks_for_options(wanted: Wanted, holders: Sequence[Holder]) -> bool:
    """Return whether options of the sockets that stand decide if the service may have its port."""
    return (wanted.reuseaddr or wanted.reuseport) and not serving(wanted, holders)


def _unverified(wanted: Wanted, holder: Holder) -> Problem:
    return Problem(
        "process",
        f"whether it is {wanted.process}: the process of {describe(holder)} cannot be seen",
        "run it with sudo: root sees whose it is",
    )


def _first_in_doubt(holders: Sequence[Holder]) -> Holder:
    return max(holders, key=lambda each: each.frees_in_s)


def _try(wanted: Wanted, holder: Holder, within: str) -> str:
    wait = f"wait {_wait(holder)}, or: " if holder.frees_in_s >= 0 else ""
    chosen = {"--reuseaddr": wanted.reuseaddr, "--reuseport": wanted.reuseport,
              "--v6only": wanted.v6only}  # fmt: skip
    options = "".join(f" {name}" for name, is_set in chosen.items() if is_set)
    user = f" --user {wanted.owner}" if wanted.owner else ""
    return (
        f"{wait}sudo {within}porttrace port {wanted.port} --{wanted.protocol}{user} "
        f"--address {wanted.address}{options} --try-bind"
    )


def _duplicates(wanted: Wanted, others: Sequence[Wanted]) -> Iterator[Problem]:
    for other in others:
        first, second = other.claim(), wanted.claim()
        state = "listening" if other.protocol == "tcp" else "bound"
        listens = Claim(**{**vars(first), "state": state})
        if sharing.predict(listens, second):
            yield Problem(
                "duplicate",
                f"line {other.line} wants it, too{_called(other)}: {sharing.why(listens, second)}",
                "give one of them another port or address",
            )


def _called(wanted: Wanted) -> str:
    return f" ({wanted.name})" if wanted.name else ""


def _owner(wanted: Wanted) -> Iterator[Problem]:
    if wanted.owner and wanted.uid < 0:
        yield Problem(
            "owner", f"there is no user {wanted.owner} on this host", f"useradd -r {wanted.owner}"
        )


def _conflict(wanted: Wanted, standing: Standing) -> Iterator[Problem]:
    if is_served(wanted, standing.holders):
        for each in standing.holders:
            if each.kind in SERVES and not is_its(wanted, each):
                yield Problem("conflict", f"shared with {describe(each)}", _free(each))
        return
    verdict = conflict(wanted.claim(), standing.claims, "bind")
    if standing.holders and verdict.works is False:
        first = standing.holders[0]
        yield Problem("conflict", f"held by {describe(first)}: {first.why}", _free(first))
        return
    # Others serve it, and would share it: somebody gets what was meant for somebody else.
    for each in standing.holders:
        if each.kind in SERVES and each.state != "ESTABLISHED":
            what = f"held by {describe(each)}, and by their options the two would share it"
            yield Problem("conflict", what, _free(each))


def _not_served(wanted: Wanted, standing: Standing) -> Iterator[Problem]:
    if not wanted.served or is_served(wanted, standing.holders):
        return
    user = f" of user {wanted.owner}" if wanted.owner else ""
    yield Problem(
        "not-served",
        f"the file says that it is served, and no {wanted.process or 'process'}{user} serves it",
        "start the service; systemctl status and its log say why it does not run",
    )


def _unserved(wanted: Wanted, standing: Standing) -> Iterator[Problem]:
    mine = serving(wanted, standing.holders)
    missing = unserved(wanted, mine) if mine else []
    if missing:
        places = ", ".join(dict.fromkeys(bracketed(each.address) for each in mine))
        yield Problem(
            "unserved",
            f"served on {places} only, not on {bracketed(wanted.address)}: {' and '.join(missing)} "
            "get nothing",
            f"let the service listen on {bracketed(wanted.address)}, or want what it serves",
        )


def describe(holder: Holder) -> str:
    """Return in a few words who has a port."""
    user = f" of user {holder.user}" if holder.user else ""
    kind = holder.kind.replace("_", " ")
    to = f" to {holder.remote}" if holder.remote else ""
    if not holder.pid:
        return f"a socket{user} ({kind}{to})"
    return f"{process(holder)}{user} ({kind}{to})"


def process(holder: Holder) -> str:
    """Return what the process of a holder is called: `nginx (pid 12, web)` in container web.

    Of a socket that several have, all of them: `nginx (pids 12, 13, 14)`.
    """
    where = f", {holder.container}" if holder.container else ""
    pids = (holder.pid, *holder.also)
    more = f" and {len(pids) - _MOST_PIDS} more" if len(pids) > _MOST_PIDS else ""
    listed = ", ".join(map(str, pids[:_MOST_PIDS]))
    return f"{holder.comm} ({'pids' if holder.also else 'pid'} {listed}{more}{where})"


def command(holder: Holder) -> str:
    """Return what the process of a holder runs, "" where that says no more than its name."""
    line = holder.cmdline
    if line.rpartition("/")[2] in ("", holder.comm):
        return ""
    return line if len(line) <= _MOST_COMMAND else f"{line[:_MOST_COMMAND]}..."


def _free(holder: Holder) -> str:
    if holder.frees_in_s >= 0:
        return f"wait {_wait(holder)}, or let the service set SO_REUSEADDR before bind"
    if holder.kind == "client":
        return "end that connection, and reserve the port so that no client gets it again"
    return "stop that one, or give the service another port"


def _wait(holder: Holder) -> str:
    return f"{holder.frees_in_s:.0f} s{or_later(holder)}"


def _address(wanted: Wanted, standing: Standing) -> Iterator[Problem]:
    if standing.here.address_is_local is False and not standing.here.nonlocal_allowed:
        version = 6 if ":" in wanted.address else 4
        yield Problem(
            "address",
            f"{wanted.address} is no address of this host: bind fails with EADDRNOTAVAIL",
            f"{standing.within}ip address add {wanted.address} dev DEVICE, or {standing.within}"
            f"sysctl -w net.ipv{version}.ip_nonlocal_bind=1",
        )


def _privileged(wanted: Wanted, standing: Standing) -> Iterator[Problem]:
    limit = standing.here.unprivileged_from
    if wanted.port >= limit or wanted.uid <= 0 or wanted.capable:
        return
    if not is_served(wanted, standing.holders):
        yield Problem(
            "privileged",
            f"ports below {limit} take CAP_NET_BIND_SERVICE, which user {wanted.owner} has not",
            "setcap cap_net_bind_service=+ep PROGRAM, or AmbientCapabilities=CAP_NET_BIND_SERVICE "
            "in its unit; then say 'capable: true' in the file",
        )


def _ephemeral(wanted: Wanted, standing: Standing) -> Iterator[Problem]:
    if at_risk(wanted.port, standing.ephemeral, standing.reserved):
        low, high = standing.ephemeral
        yield Problem(
            "ephemeral",
            f"in the ephemeral range {low}-{high} and not reserved: a client may get it",
            reserve_command([wanted.port], standing.reserved, standing.within),
        )


def _node_port(wanted: Wanted, standing: Standing) -> Iterator[Problem]:
    if standing.node_ports:
        low, high = standing.node_ports
        if low <= wanted.port <= high:
            yield Problem(
                "node-port",
                f"in the NodePort range {low}-{high} of this Kubernetes node: a service of the "
                "cluster may be given it, and takes its traffic then",
                "give it a port outside of that range",
            )
