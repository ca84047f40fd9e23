"""A real local cluster: a worker that is killed costs time and nothing else."""

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleets import made, read
from porttrace.analysis.fleet.merge import Fleet
from porttrace.analysis.fleet.spread import spread
from porttrace.analysis.render.fleet_values import fleet_values
from porttrace.tracer.errors import PorttraceError


class Watched:
    """What was seen of a cluster when it began."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.listening: set[str] = set()
        self.answers: list[bytes] = []

    def began(self, client: Any) -> None:
        """Note its workers, and on which addresses its processes listen."""
        self.pids = list(client.run(os.getpid).values())
        for pid in (os.getpid(), *self.pids):
            for each in psutil.Process(pid).net_connections("inet"):
                if each.status == psutil.CONN_LISTEN:
                    self.listening.add(each.laddr.ip)


@pytest.mark.timeout(300)
def test_a_worker_is_killed_mid_way(tmp_path: Path) -> None:
    # GIVEN ten recordings of ten hosts, two of them twice, and one that is none, and two workers
    paths = made(tmp_path, hosts=10)
    for number in (0, 1):
        paths.append(tmp_path / f"again-{number}.ptrace")
        paths[-1].write_bytes(paths[number].read_bytes())
    (tmp_path / "bad.ptrace").write_bytes(b"no recording")
    watched, fleet = Watched(), Fleet()
    # WHEN one of them is killed after the first result
    parts = spread([*map(str, paths), str(tmp_path / "bad.ptrace")], "", 2, watched.began)
    fleet.add(next(parts))
    os.kill(watched.pids[0], signal.SIGKILL)
    for each in parts:
        fleet.add(each)
    # THEN nothing is missing, and nothing counts twice
    expected = read(*paths, tmp_path / "bad.ptrace")
    found, wanted = fleet_values(fleet), fleet_values(expected)
    assert found == wanted
    assert (found["hosts"], found["recordings"]["read"]) == (10, 10)
    assert len(found["recordings"]["copies"]) == 2
    assert [each["path"] for each in found["skipped"]] == [str(tmp_path / "bad.ptrace")]
    # AND the cluster could be reached from this machine alone
    assert watched.listening == {"127.0.0.1"}
    assert not any(psutil.pid_exists(pid) for pid in watched.pids)


def test_no_scheduler_there() -> None:
    with pytest.raises(PorttraceError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        list(spread(["x"], "tcp://127.0.0.1:1"))


def test_no_address() -> None:
    with pytest.raises(PorttraceError, match="no Dask scheduler answers at"):
        list(spread(["x"], "nosuch://"))
