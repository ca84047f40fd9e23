"""`porttrace serve` with a real kernel, scraped by a real Prometheus on loopback."""

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tracing import PORTTRACE, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(400)]

GRAFANA = Path(__file__).parent.parent.parent / "docs" / "grafana"
STORY = ("lab", "scenario", "serialized-logins", "--dead-time", "3s", "--pages", "10")
FIRING = 'ALERTS{alertname="PorttraceSerializedConnects", alertstate="firing"}'
CONNECTS, COMM = 23, "tested"
# A port that is bound and does not listen refuses.
REFUSED = f"""
import socket, time
with open("/proc/self/comm", "w") as name:
    name.write("{COMM}")
taken = socket.socket()
taken.bind(("127.0.0.1", 0))
for _ in range({CONNECTS}):
    assert socket.socket().connect_ex(taken.getsockname())
again = socket.socket()
try:
    again.bind(taken.getsockname())
except OSError:
    time.sleep(8)  # who holds the port is looked for a round or two later
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def program(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the background, its standard error in `log`; ends whatever happens."""
    with log.open("wb") as said, subprocess.Popen(words, stderr=said, stdout=said) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def waiting_shell(command: list[str]) -> Iterator[tuple[int, Callable[[], int]]]:
    """Yield the pid of a shell, and what has it run the command once, to its exit status."""
    loop = 'while read -r _; do "$@" >/dev/null 2>&1; echo $?; done'
    with subprocess.Popen(
        ["sh", "-c", loop, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdin and shell.stdout
        asked, told = shell.stdin, shell.stdout

        def once() -> int:
            asked.write("\n")
            asked.flush()
            return int(told.readline())

        yield shell.pid, once
        asked.close()


@contextlib.contextmanager
def serving(tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    log = tmp_path / "serve.log"
    with program([*PORTTRACE, "serve", *options], log) as process:
        wait_until(lambda: "Serving" in log.read_text() or process.poll() is not None, 100)
        assert process.poll() is None, log.read_text()
        yield process


# -- alone ------------------------------------------------------------------------------


def test_it_counts_exactly_and_takes_its_file_away(tmp_path: Path) -> None:
    folder, command = tmp_path / "prom", ["/usr/bin/python3", "-c", REFUSED]
    folder.mkdir()
    file, port = folder / "porttrace.prom", free_port()
    counted = f'porttrace_attempts_total{{comm="{COMM}",outcome="refused"}} {CONNECTS}.0'
    failed = 'porttrace_bind_failures_total{errno="EADDRINUSE",holder="bound"} 1.0'
    place = ("--listen", f"127.0.0.1:{port}", "--textfile", str(folder))
    with (
        waiting_shell(command) as (pid, run_once),
        serving(tmp_path, "--pid", str(pid), "--children", *place) as process,
    ):
        assert "porttrace_info{" in file.read_text(), "it is there from the beginning"
        assert run_once() == 0
        wait_until(lambda: failed in scraped(port), 30)
        assert counted in scraped(port)
        wait_until(lambda: counted in file.read_text(), 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "serve.log").read_text()
    assert not list(folder.iterdir())
    assert "Traceback" not in (tmp_path / "serve.log").read_text()


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


# -- with Prometheus ----------------------------------------------------------------------


class Prometheus:
    """A Prometheus that scrapes one exporter every second, with the alerts of docs/."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        """Tell whether it answers."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def ask(self, query: str) -> list[float]:
        """Return the values of all series that a query finds now."""
        words = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self._url}/api/v1/query?{words}", timeout=30) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return [float(each["value"][1]) for each in result]


@contextlib.contextmanager
def prometheus(tmp_path: Path, exporter: int) -> Iterator[Prometheus]:
    words = shutil.which("prometheus")
    if words is None:
        if os.environ.get("PORTTRACE_RUN_PROMETHEUS_TESTS") == "1":
            pytest.fail("Prometheus is not installed: apt install prometheus", pytrace=False)
        pytest.skip("Prometheus is not installed: apt install prometheus")
    config, port = tmp_path / "prometheus.json", free_port()
    config.write_text(json.dumps({  # JSON is YAML
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(GRAFANA / "alerts.yml")],
        "scrape_configs": [
            {"job_name": "porttrace", "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}]}
        ],
    }))  # fmt: skip
    command = [
        words,
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with program(command, tmp_path / "prometheus.log"):
        server = Prometheus(port)
        wait_until(server.ready, 60)
        yield server


def panels() -> Iterator[tuple[str, str]]:
    """Yield title and query of every panel, its variables filled in."""
    for panel in json.loads((GRAFANA / "porttrace.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "5m")
            yield panel["title"], query


def test_every_panel_has_data_and_the_alert_fires(tmp_path: Path) -> None:
    port = free_port()
    with (
        waiting_shell([*PORTTRACE, *STORY]) as (pid, run_story),
        serving(
            tmp_path, "--pid", str(pid), "--children", "--listen", f"127.0.0.1:{port}"
        ),
        prometheus(tmp_path, port) as server,
    ):  # fmt: skip
        wait_until(lambda: server.ask("up") == [1.0], 60)
        found = any(_found(server, run_story) for _ in range(3))
        assert found, scraped(port)
        answers = {(title, query): server.ask(query) for title, query in panels()}
        sees_accepts = not server.ask('porttrace_info{mode="tracepoint"}')
        assert server.ask("sum(porttrace_lost_events_total)") == [0.0]
        # Not their rate: a series that is new when it is scraped first has none yet.
        counts = server.ask("max(porttrace_held_attempts_total)")
        counts += server.ask("max(porttrace_serialized_attempts_total)")
        wait_until(lambda: server.ask(FIRING) == [1.0], 90)  # after the 30 s that it waits
    assert [key for key, values in answers.items() if not values] == []
    unknown = {title for (title, _), values in answers.items() if any(map(math.isnan, values))}
    assert unknown <= (set() if sees_accepts else {"Wait in the accept queue"})
    shown = {title: max(values) for (title, _), values in answers.items()}
    assert min(counts) > 0 and len(counts) == 2
    assert 1.0 < shown["Worst hold"] < 10.0


# On a machine without processor to spare a throttle is harder to tell from chance: then once more.
def _found(server: Prometheus, run_story: Callable[[], int]) -> bool:
    run_story()
    until = time.monotonic() + 40
    while time.monotonic() < until:
        if max(server.ask("porttrace_serialized_attempts_total"), default=0.0) > 0:
            return True
        time.sleep(1.0)
    return False
