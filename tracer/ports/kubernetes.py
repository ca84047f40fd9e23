"""Whether this host is a node of Kubernetes, and which ports that gives to services (NodePort)."""

import re
from pathlib import Path

from porttrace.tracer import processes

_DEFAULT = (30000, 32767)  # kube-apiserver, --service-node-port-range
_NODE = frozenset(("kubelet", "kube-proxy", "k3s", "k3s-server", "k3s-agent", "rke2", "k0s"))
_OPTION = re.compile(r"service-node-port-range[=\0 ](\d+)-(\d+)")


def node_ports(root: Path = Path("/")) -> tuple[int, int] | None:
    """Return the range of NodePorts of this node, both ends in it; None where this is no node.

    Another range than the default is known only where its API server runs.
    """
    proc = root / "proc"
    is_node = (root / "etc/kubernetes").is_dir()
    for pid in processes.all_pids(proc):
        command = _read(proc / str(pid) / "cmdline")
        found = _OPTION.search(command)
        if found:
            return int(found[1]), int(found[2])
        is_node = is_node or Path(command.partition("\0")[0]).name in _NODE
    return _DEFAULT if is_node else None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""
