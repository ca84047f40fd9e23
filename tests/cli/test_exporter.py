"""What an exporter answers, over HTTP and as a file; and what it says when it cannot."""

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from builders import NEVER, S, events
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.metrics.catalogue import METRICS
from porttrace.analysis.metrics.histogram import Histogram
from porttrace.analysis.metrics.tally import Now, Tally
from porttrace.cli.exporter import FILE, Endpoint, Exporter, Textfile
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.output import OutputError

HOSTILE = (b'"} 9', b"a\nb 1", b"\\", b"\x1b[2J", b"\xff", b"other", "\u202ex".encode(), b"")


def hostile() -> Tally:
    """Return a tally of one attempt of each hostile name, and one of a tame one."""
    story = events()
    for n, comm in enumerate((*HOSTILE, b"tame")):
        story.connect(tid=n + 1, comm=comm, sock=n + 1).syn_sent().established()
    tally = Tally(("serialized-connects",))
    tally.take_attempts(step(story.array(), Open(), NEVER)[0], S)
    return tally


def exporter(tally: Tally) -> Exporter:
    return Exporter(
        lambda: tally.families(Now(left_out={"window": 3}, info=("1", "fentry", "yes")))
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_hostile_names_are_one_label_each_and_nothing_else() -> None:
    families = list(text_string_to_metric_families(exporter(hostile()).text().decode()))
    (attempts,) = (each for each in families if each.name == "porttrace_attempts")
    counted = {s.labels["comm"]: s.value for s in attempts.samples if s.value}
    assert counted == {
        '"} 9': 1, "a\\x0ab 1": 1, "\\": 1, "\\x1b[2J": 1, "\\xff": 1, "other": 1,
        "\\u202ex": 1, "": 1, "tame": 1,
    }  # fmt: skip
    names = {each.name for each in families if "process" not in each.name}
    assert names == {metric.name.removesuffix("_total") for metric in METRICS}


def test_a_histogram_is_one_that_prometheus_knows() -> None:
    histogram = Histogram()
    histogram.add(np.array([400_000, 1_004_000_000, 200_000_000_000]))
    tally = hostile()
    tally._accept_wait = histogram
    families = text_string_to_metric_families(exporter(tally).text().decode())
    (found,) = (each for each in families if each.name == "porttrace_accept_wait_seconds")
    buckets = {s.labels["le"]: s.value for s in found.samples if s.name.endswith("_bucket")}
    assert (buckets["0.0005"], buckets["1.0" if "1.0" in buckets else "1"]) == (1, 1)
    assert (buckets["3.0" if "3.0" in buckets else "3"], buckets["+Inf"]) == (2, 3)
    (total,) = (s.value for s in found.samples if s.name.endswith("_sum"))
    assert total == pytest.approx(201.0044)


@contextlib.contextmanager
def answering(address: str = "127.0.0.1") -> Iterator[int]:
    port = free_port()
    with Endpoint(address, port) as door:
        door.serve(exporter(hostile()))
        yield port


def test_it_answers_over_http() -> None:
    with answering() as port:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            kind, text = answer.headers["Content-Type"], answer.read().decode()
    assert kind.startswith("text/plain")
    assert 'porttrace_attempts_total{comm="tame",outcome="established"} 1.0' in text
    assert "porttrace_process_cpu_seconds_total" in text


def test_who_says_nothing_keeps_nobody_else_waiting() -> None:
    with answering() as port, contextlib.ExitStack() as ends:
        for _ in range(4):
            ends.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            assert answer.status == 200


def test_more_requests_than_it_has_room_for_are_refused() -> None:
    with answering() as port, contextlib.ExitStack() as ends:
        silent = [
            ends.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            for _ in range(9)
        ]
        assert silent[8].recv(1) == b"", "the ninth is closed at once"


def test_ipv6() -> None:
    try:
        with answering("::1") as port, urllib.request.urlopen(f"http://[::1]:{port}/") as answer:
            assert answer.status == 200
    except PorttraceError as error:
        pytest.skip(f"no IPv6 here: {error}")


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PorttraceError) as error:
            Endpoint("127.0.0.1", port)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in str(error.value)
    assert f"porttrace port {port}" in error.value.hint and "--listen" in error.value.hint


def test_an_address_of_another_host_is_said_with_what_to_do() -> None:
    with pytest.raises(PorttraceError) as error:
        Endpoint("192.0.2.77", 9747)
    assert "cannot listen on 192.0.2.77:9747: Cannot assign" in str(error.value)
    assert "'ip address'" in error.value.hint


def test_without_prometheus_client_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from porttrace.cli import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "apt install python3-prometheus-client" in done.stderr
    assert "pip install" in done.stderr


# -- the file ---------------------------------------------------------------------------


def test_the_file_is_replaced_whole_and_readable_by_all(tmp_path: Path) -> None:
    file = Textfile(str(tmp_path))
    file.write(b"one 1\n")
    path = tmp_path / FILE
    with path.open("rb") as reader:
        file.write(b"two 2\n")
        assert reader.read() == b"one 1\n", "who reads the old one has all of it"
    assert path.read_bytes() == b"two 2\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == [FILE], "nothing else is left"
    file.remove()
    assert not list(tmp_path.iterdir())
    file.remove()


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "folder"
    precious.write_text("as it was")
    folder.mkdir()
    (folder / FILE).symlink_to(precious)
    (folder / f".{FILE}.{os.getpid()}").symlink_to(precious)
    Textfile(str(folder)).write(b"one 1\n")
    assert precious.read_text() == "as it was"
    assert not (folder / FILE).is_symlink() and (folder / FILE).read_bytes() == b"one 1\n"


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as error:
        Textfile(str(tmp_path / "none"))
    assert "there is no folder" in str(error.value) and "textfile.directory" in error.value.hint


def test_a_folder_that_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = Textfile(str(folder))
    folder.rmdir()
    with pytest.raises(OutputError, match="cannot write"):
        file.write(b"one 1\n")
