"""Network devices with what is put on them, asked through rtnetlink in our own namespace.

The only module that imports pyroute2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from porttrace.tracer.errors import PorttraceError

_EGRESS, _INGRESS, _ROOT = 0xFFFFFFF3, 0xFFFFFFF2, 0xFFFFFFFF
_CLSACT = ("clsact", "ingress")
_TUNNEL_PORTS = ("IFLA_VXLAN_PORT", "IFLA_GENEVE_PORT", "IFLA_BAREUDP_PORT")


@dataclass(frozen=True)
class Queueing:
    """A queueing discipline of a device."""

    device: str
    kind: str  # tbf, netem, fq_codel, ...
    is_root: bool


@dataclass(frozen=True)
class Filter:
    """A filter of traffic control on a device."""

    device: str
    kind: str  # bpf, u32, flower, ...
    direction: str  # egress or ingress
    actions: tuple[str, ...] = ()  # police, gact, ...
    program: int = 0  # of a BPF filter


@dataclass(frozen=True)
class Devices:
    """All devices of a network namespace."""

    names: dict[int, str]  # by index
    xdp: dict[str, int]  # device -> program id
    queueing: tuple[Queueing, ...]
    filters: tuple[Filter, ...]
    left_out: int = 0  # devices whose filters were not asked for


def devices(most: int = 64) -> Devices:
    """Return the devices of our own network namespace; filters of the first `most` only.

    Raises PorttraceError when the kernel does not answer.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as route:
            links = list(route.get_links())
            names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in links}
            disciplines = list(route.get_qdiscs())
            asked = _with_filters(disciplines)
            filters = [each for at in asked[:most] for each in _filters(route, names, *at)]
    except (NetlinkError, OSError) as error:
        raise PorttraceError(f"rtnetlink did not answer: {error}") from None
    queueing = tuple(
        Queueing(names.get(each["index"], ""), str(each.get_attr("TCA_KIND")),
                 each["parent"] == _ROOT)
        for each in disciplines
    )  # fmt: skip
    return Devices(names, _xdp(links), queueing, tuple(filters), max(0, len(asked) - most))


def tunnels() -> dict[int, str]:
    """Return the devices of the calling thread's network namespace that receive over UDP: port ->
    name and kind, as in "vxlan0 (vxlan)". Raises PorttraceError when the kernel does not answer.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as route:
            return dict(pair for link in route.get_links() for pair in _tunnel(link))
    except (NetlinkError, OSError) as error:
        raise PorttraceError(f"rtnetlink did not answer: {error}") from None


def _tunnel(link: Any) -> Iterator[tuple[int, str]]:
    about = link.get_attr("IFLA_LINKINFO")
    kind = about.get_attr("IFLA_INFO_KIND") if about is not None else None
    data = about.get_attr("IFLA_INFO_DATA") if kind else None
    for name, value in _attributes(data):
        if name in _TUNNEL_PORTS and value:
            yield int(value), f"{link.get_attr('IFLA_IFNAME')} ({kind})"


def _with_filters(disciplines: list[Any]) -> list[tuple[int, int, str]]:
    # (index, parent, direction): only disciplines can have filters.
    found: list[tuple[int, int, str]] = []
    for each in disciplines:
        if each.get_attr("TCA_KIND") in _CLSACT:
            found.append((each["index"], _INGRESS, "ingress"))
            found.append((each["index"], _EGRESS, "egress"))
        elif each["handle"]:
            found.append((each["index"], each["handle"], "egress"))
    return found


def _filters(
    route: Any, names: dict[int, str], index: int, parent: int, direction: str
) -> Iterator[Filter]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        answers = list(route.get_filters(index=index, parent=parent))
    except NetlinkError:
        return  # a discipline without classes cannot have any
    told: dict[Filter, None] = {}
    for answer in answers:
        options = answer.get_attr("TCA_OPTIONS")
        if options is not None:
            each = Filter(
                names.get(index, ""),
                str(answer.get_attr("TCA_KIND")),
                direction,
                tuple(dict.fromkeys(_actions(options))),
                _number(options, "TCA_BPF_ID"),
            )
            told[each] = None
    yield from told


def _actions(value: Any) -> Iterator[str]:
    # Actions stand nested, at another depth for each kind of filter.
    for name, inner in _attributes(value):
        if name.endswith("_ACT_KIND"):
            yield str(inner)
        elif name.endswith("_POLICE"):
            yield "police"
        else:
            yield from _actions(inner)


def _number(options: Any, wanted: str) -> int:
    return next((int(value) for name, value in _attributes(options) if name == wanted), 0)


def _attributes(value: Any) -> list[tuple[str, Any]]:
    pairs = value.get("attrs", ()) if isinstance(value, dict) else ()
    return [(str(pair[0]), pair[1]) for pair in pairs]


def _xdp(links: list[Any]) -> dict[str, int]:
    found = {}
    for link in links:
        xdp = link.get_attr("IFLA_XDP")
        number = xdp.get_attr("IFLA_XDP_PROG_ID") if xdp is not None else None
        if number:
            found[str(link.get_attr("IFLA_IFNAME"))] = int(number)
    return found
