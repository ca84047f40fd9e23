"""The ports that a host's services want, against what stands and what the host says: problems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from porttrace.analysis import sharing
from porttrace.analysis.may_bind import Here, conflict
from porttrace.analysis.port_ranges import Ranges, at_risk, reserve_command
from porttrace.analysis.sharing import Claim
from porttrace.tracer.facts import Holder

_SERVES = ("listener", "udp")


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
    line: int = 0

    def claim(self) -> Claim:
        """Return the bind that the service will make."""
        return Claim(self.protocol, self.address, self.port, self.v6only, self.reuseaddr,
                     self.reuseport, self.uid)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What is wrong with a wanted port, and what to do."""

    kind: str  # conflict, ephemeral, privileged, duplicate, node-port, address, owner
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


def check(wanted: Wanted, others: Sequence[Wanted], standing: Standing) -> list[Problem]:
    """Return the problems of one wanted port; `others` are those that come before it."""
    return [
        *_duplicates(wanted, others),
        *_owner(wanted),
        *_conflict(wanted, standing),
        *_address(wanted, standing),
        *_privileged(wanted, standing),
        *_ephemeral(wanted, standing),
        *_node_port(wanted, standing),
    ]


def is_served(wanted: Wanted, holders: Sequence[Holder]) -> Holder | None:
    """Return the holder that is the wanted service itself, None where it does not run."""
    return next((each for each in holders if _is_its(wanted, each)), None)


def _is_its(wanted: Wanted, holder: Holder) -> bool:
    user = not wanted.owner or holder.uid == wanted.uid
    # Without root the process of another user does not show: then the user decides.
    process = not wanted.process or not holder.comm or holder.comm == wanted.process
    return holder.kind in _SERVES and user and process


def _duplicates(wanted: Wanted, others: Sequence[Wanted]) -> Iterator[Problem]:
    for other in others:
        first, second = other.claim(), wanted.claim()
        listens = Claim(**{**vars(first), "state": "listening"})
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
    strangers = [each for each in standing.holders if not _is_its(wanted, each)]
    served = is_served(wanted, standing.holders)
    if served:
        for each in strangers:
            if each.kind in _SERVES:
                yield Problem("conflict", f"shared with {describe(each)}", _free(each))
        return
    verdict = conflict(wanted.claim(), standing.claims, "bind")
    if strangers and not verdict.works:
        first = strangers[0]
        # What cannot be known of an old connection may be fine; of all others, seldom.
        if verdict.works is None and first.kind in ("accepted", "time_wait", "closing"):
            return
        yield Problem("conflict", f"held by {describe(first)}: {first.why}", _free(first))


def describe(holder: Holder) -> str:
    """Return in a few words who has a port."""
    user = f" of user {holder.user}" if holder.user else ""
    kind = holder.kind.replace("_", " ")
    to = f" to {holder.remote}" if holder.remote else ""
    if not holder.pid:
        return f"a socket{user} ({kind}{to})"
    where = f", {holder.container}" if holder.container else ""
    return f"{holder.comm} (pid {holder.pid}{where}){user} ({kind}{to})"


def _free(holder: Holder) -> str:
    if holder.frees_in_s >= 0:
        return f"wait {holder.frees_in_s:.0f} s, or let the service set SO_REUSEADDR before bind"
    if holder.kind == "client":
        return "end that connection, and reserve the port so that no client gets it again"
    return "stop that one, or give the service another port"


def _address(wanted: Wanted, standing: Standing) -> Iterator[Problem]:
    if standing.here.address_is_local is False and not standing.here.nonlocal_allowed:
        yield Problem(
            "address",
            f"{wanted.address} is no address of this host: bind fails with EADDRNOTAVAIL",
            f"ip address add {wanted.address} dev DEVICE, or sysctl -w net.ipv4.ip_nonlocal_bind=1",
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
            reserve_command([wanted.port], standing.reserved),
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
