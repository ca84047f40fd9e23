"""Containers are recognised by their control group, and named by their runtime if it answers."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porttrace.tracer import cgroups, namespaces, targets
from porttrace.tracer.containers import Container, container_of, paths_of, unescaped, unit_of
from porttrace.tracer.errors import TargetError
from porttrace.tracer.facts import Process
from porttrace.tracer.processes import called_inside, placed, read_process
from porttrace.tracer.runtimes import PATIENCE_S, Names

DATA = Path(__file__).parent.parent / "data"
ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


# -- by control group


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (f"/docker/{ID}", Container(ID, f"/docker/{ID}")),
        (f"/a/docker-{ID}.scope/init", Container(ID, f"/a/docker-{ID}.scope")),
        (f"/docker/{OTHER}/kubepods/{ID}", Container(ID, f"/docker/{OTHER}/kubepods/{ID}")),
        (
            "/machine.slice/systemd-nspawn@my\\x2dweb.service/payload/init.scope",
            Container("my-web", "/machine.slice/systemd-nspawn@my\\x2dweb.service", "my-web"),
        ),
        ("/machine.slice/systemd-nspawn@web.service/supervisor", None),
        (
            "/machine.slice/machine-web\\x2d1.scope/payload",
            Container("web-1", "/machine.slice/machine-web\\x2d1.scope", "web-1"),
        ),
        ("/lxc.payload.web/system.slice/x.service", Container("web", "/lxc.payload.web", "web")),
        ("/lxc.monitor.web", None),
        (f"/machine.slice/libpod-conmon-{ID}.scope", None),
        ("/system.slice/docker.service", None),
        ("/", None),
    ],
)  # fmt: skip
def test_a_path_tells_the_container(path: str, known: Container | None) -> None:
    assert container_of([path]) == known


def test_of_several_hierarchies_the_one_that_tells() -> None:
    # a hybrid host: v2 has only the unit that started it
    text = f"4:memory:/docker/{ID}\n0::/system.slice/containerd.service\n"
    assert paths_of(text) == ["/system.slice/containerd.service", f"/docker/{ID}"]
    assert container_of(paths_of(text)) == Container(ID, f"/docker/{ID}")
    assert paths_of(f"4:memory:/docker/{ID}\n") == ["/", f"/docker/{ID}"]
    assert paths_of("") == []


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", ("nginx.service", "/system.slice/nginx.service")),
        (
            "/user.slice/user@1000.service/app.slice/my\\x2dapp.service/sub",
            ("my-app.service", "/user.slice/user@1000.service/app.slice/my\\x2dapp.service"),
        ),
        ("/user.slice/session-3.scope", ("", "")),
        ("/", ("", "")),
    ],
)
def test_a_path_tells_the_systemd_service(path: str, unit: tuple[str, str]) -> None:
    assert unit_of([path]) == unit


def test_the_owner_of_a_rootless_container() -> None:
    path = f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
    known = container_of([path])
    assert known and known.uid == 1000
    assert Container(ID, f"/docker/{ID}").uid == 0


@given(st.binary().map(os.fsdecode))
def test_any_path(path: str) -> None:
    container_of([path])
    unit_of([path])
    unescaped(path)
    paths_of(f"0::{path}\n")


def in_namespaces(proc: Path, pid: int, numbers: str, path: str = "/") -> None:
    base = proc / str(pid)
    base.mkdir()
    (base / "status").write_text(f"Name:\tx\nTgid:\t{pid}\nNSpid:\t{numbers}\n")
    (base / "comm").write_text("python\n")
    (base / "cgroup").write_text(f"0::{path}\n")


def test_the_pid_inside_is_the_innermost(tmp_path: Path) -> None:
    in_namespaces(tmp_path, 4321, "4321\t70\t7")
    in_namespaces(tmp_path, 4322, "4322")
    in_namespaces(tmp_path, 4323, "4323\t7")
    assert read_process(4321, tmp_path).ns_pid == 7
    assert read_process(4322, tmp_path).ns_pid == 0
    assert sorted(called_inside(7, tmp_path)) == [4321, 4323]
    assert called_inside(4322, tmp_path) == []


def test_a_process_is_named_with_its_container(tmp_path: Path) -> None:
    in_namespaces(tmp_path, 4321, "4321\t7", f"/docker/{ID}")
    in_namespaces(tmp_path, 4322, "4322", "/system.slice/nginx.service")
    named = read_process(4321, tmp_path, lambda known: f"name of {known.id[:4]}")
    assert (named.container, named.container_name) == (ID[:12], "name of 0123")
    assert read_process(4321, tmp_path).container_name == ""
    unit = read_process(4322, tmp_path, lambda known: "no container")
    assert (unit.container, unit.container_name) == ("", "nginx.service")


def test_a_process_that_is_gone_is_placed_by_its_control_group() -> None:
    gone = placed(Process(9), f"/docker/{ID}", lambda known: "web")
    assert gone == Process(9, cgroup=f"/docker/{ID}", container=ID[:12], container_name="web")
    assert placed(Process(9), "") == Process(9)


# -- names in files


def write(root: Path, path: str, value: object) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value))


BUNDLE = f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
USERDATA = f"run/containers/storage/overlay-containers/{ID}/userdata/config.json"
DOCKER = f"var/lib/docker/containers/{ID}/config.v2.json"
STORED = "var/lib/containers/storage/overlay-containers/containers.json"
KNOWN = Container(ID, f"/kubepods/{ID}")


@pytest.mark.parametrize(
    ("path", "content", "name"),
    [
        (
            BUNDLE,
            {
                "annotations": {
                    "io.kubernetes.cri.container-name": "web",
                    "io.kubernetes.cri.sandbox-name": "web-0",
                    "io.kubernetes.cri.sandbox-namespace": "shop",
                }
            },
            "shop/web-0/web",
        ),
        (
            BUNDLE,
            {
                "annotations": {
                    "io.kubernetes.cri.container-type": "sandbox",
                    "io.kubernetes.cri.sandbox-name": "web-0",
                    "io.kubernetes.cri.sandbox-namespace": "shop",
                }
            },
            "shop/web-0",
        ),
        (
            USERDATA,
            {
                "annotations": {
                    "io.kubernetes.container.name": "web",
                    "io.kubernetes.pod.name": "web-0",
                    "io.kubernetes.pod.namespace": "shop",
                }
            },
            "shop/web-0/web",
        ),
        (STORED, [{"id": OTHER, "names": ["db"]}, {"id": ID, "names": ["web"]}], "web"),
        (STORED, [{"id": OTHER, "names": ["db"]}], ""),
        (STORED, [{"id": ID}], ""),
        (DOCKER, {"ID": ID, "Name": "/web"}, "web"),
        (DOCKER, {"Name": None}, ""),
        (DOCKER, [], ""),
        (STORED, "[{", ""),
        (BUNDLE, {"annotations": None}, ""),
        (BUNDLE, {"annotations": []}, ""),
        (BUNDLE, "[" * 100_000, ""),
        (BUNDLE, '{"annotations": {"io.kubernetes.cri.container-name": "\\ud800\\u001b[2J"}}',
         "\\ud800\x1b[2J"),
        (BUNDLE, {"annotations": {"io.kubernetes.cri.container-name": "x" * 1000}}, "x" * 256),
    ],
)  # fmt: skip
def test_names_in_the_files_of_runtimes(
    tmp_path: Path, path: str, content: object, name: str
) -> None:
    write(tmp_path, path, content)
    assert Names((tmp_path,)).of(KNOWN) == name


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (DOCKER, {"Name": "/web", "Config": {"Image": "shop:2"}}),
        (BUNDLE, {"annotations": {"io.kubernetes.cri.container-name": "web",
                                  "io.kubernetes.cri.image-name": "shop:2"}}),
        (USERDATA, {"annotations": {"io.kubernetes.container.name": "web",
                                    "io.kubernetes.cri-o.ImageName": "shop:2"}}),
        (STORED, [{"id": ID, "names": ["web"], "metadata": '{"image-name": "shop:2"}'}]),
    ],
)  # fmt: skip
def test_images_in_the_files_of_runtimes(tmp_path: Path, path: str, content: object) -> None:
    write(tmp_path, path, content)
    names = Names((tmp_path,))
    assert (names.of(KNOWN), names.image_of(KNOWN)) == ("web", "shop:2")


def test_no_image_is_no_reason_not_to_have_a_name(tmp_path: Path) -> None:
    write(tmp_path, DOCKER, {"Name": "/web", "Config": []})
    names = Names((tmp_path,))
    assert (names.image_of(KNOWN), names.of(KNOWN)) == ("", "web")


def test_no_file_holds_us_up(tmp_path: Path) -> None:
    for path in (BUNDLE, USERDATA, STORED, DOCKER):
        (tmp_path / path).parent.mkdir(parents=True)
        os.mkfifo(tmp_path / path)
    assert Names((tmp_path,)).of(KNOWN) == ""


def test_nor_one_that_is_larger_than_any_runtime_writes(tmp_path: Path) -> None:
    write(tmp_path, BUNDLE, {"annotations": {"io.kubernetes.cri.container-name": "web"}})
    assert Names((tmp_path,)).of(KNOWN) == "web"
    os.truncate(tmp_path / BUNDLE, 9 << 20)
    assert Names((tmp_path,)).of(KNOWN) == ""


def test_files_of_a_user_are_not_believed(tmp_path: Path) -> None:
    write(tmp_path, STORED, [{"id": ID, "names": ["web"]}])
    own = Container(ID, f"/user.slice/user-1000.slice/libpod-{ID}.scope")
    assert Names((tmp_path,)).of(own) == ""


def test_the_host_is_asked_where_we_live_in_a_container_ourselves(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write(there, STORED, [{"id": ID, "names": ["web"]}])
    assert Names((here, there)).of(KNOWN) == "web"


# -- names from sockets

REPLIES = {name: (DATA / f"{name}-containers.http").read_bytes() for name in ("docker", "podman")}
PATHS = {"docker": "run/docker.sock", "podman": "run/podman/podman.sock"}


def ids_of(reply: bytes) -> dict[str, str]:
    """Return name -> id of a recorded reply."""
    listed = json.loads(reply.partition(b"\r\n\r\n")[2])
    return {each["Names"][0].strip("/"): each["Id"] for each in listed}


@contextmanager
def serving(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[list[bytes]]:
    """Answer each connection to `path` by `answer`; the requests are collected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    requests: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    requests.append(client.recv(4096))
                    try:
                        answer(client)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield requests
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def known(container: str) -> Container:
    return Container(container, f"/x/{container}")


@pytest.mark.parametrize("runtime", REPLIES)
def test_what_real_runtimes_answer(tmp_path: Path, runtime: str) -> None:
    ids = ids_of(REPLIES[runtime])
    with serving(tmp_path / PATHS[runtime], lambda to: to.sendall(REPLIES[runtime])) as requests:
        names = Names((tmp_path,))
        assert {names.of(known(each)) for each in ids.values()} == ids.keys()
        assert all(names.image_of(known(each)) for each in ids.values())
        assert len(requests) == 1
        # one that it does not tell of is asked for once, like any other
        for _ in range(3):
            assert names.of(known(OTHER)) == ""
        assert len(requests) == 2
    assert {request.split(b"\r\n")[0] for request in requests} == {
        b"GET /containers/json?all=true HTTP/1.0"
    }


def test_what_was_told_before_is_known_when_nobody_answers_any_more(tmp_path: Path) -> None:
    reply = REPLIES["docker"]
    names = Names((tmp_path,))
    (tmp_path / "run/user/me").mkdir(parents=True)
    with serving(tmp_path / PATHS["docker"], lambda client: client.sendall(reply)):
        names.ask_all()
    (tmp_path / PATHS["docker"]).unlink()
    for name, container in ids_of(reply).items():
        assert names.of(known(container)) == name


def test_a_name_that_is_hostile_comes_as_it_is(tmp_path: Path) -> None:
    # printing it is what render.escape is for: tests/analysis/test_containers.py
    hostile = REPLIES["podman"].replace(b"/shop", rb"/\u001b[2J\n\ud800")
    container = ids_of(REPLIES["podman"])["shop"]
    with serving(tmp_path / PATHS["podman"], lambda to: to.sendall(hostile)):
        assert Names((tmp_path,)).of(known(container)) == "\x1b[2J\n\\ud800"


def never(client: socket.socket) -> None:
    client.recv(1)  # until whoever asks hangs up


def dripping(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        client.sendall(b" ")
        time.sleep(0.01)


@pytest.mark.parametrize("answer", [never, dripping])
def test_a_runtime_that_hangs_costs_less_than_its_limit_in_all(
    tmp_path: Path, answer: Callable[[socket.socket], None]
) -> None:
    with (
        serving(tmp_path / PATHS["docker"], answer) as docker,
        serving(tmp_path / PATHS["podman"], answer) as podman,
    ):
        names = Names((tmp_path,))
        began_s = time.monotonic()
        for number in range(100):
            assert names.of(known(f"{number:064x}")) == ""
        assert time.monotonic() - began_s < 2 * PATIENCE_S  # on a busy machine
    assert (len(docker), len(podman)) == (1, 1)


def test_one_that_hangs_does_not_silence_another(tmp_path: Path) -> None:
    container = ids_of(REPLIES["podman"])["shop"]
    with (
        serving(tmp_path / PATHS["docker"], never),
        serving(tmp_path / PATHS["podman"], lambda to: to.sendall(REPLIES["podman"])),
    ):
        assert Names((tmp_path,)).of(known(container)) == "shop"


def test_a_queue_that_is_full_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / PATHS["docker"]
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(path))
        server.listen(0)
        first.connect(str(path))
        began_s = time.monotonic()
        assert Names((tmp_path,)).of(KNOWN) == ""
        assert time.monotonic() - began_s < PATIENCE_S


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.0 500 Oops\r\n\r\n[]",
        b"HTTP/1.0 200 OK\r\n\r\nnull",
        b"HTTP/1.0 200 OK\r\n\r\n[3]",
        b'HTTP/1.0 200 OK\r\n\r\n[{"Id": 3, "Names": 4}]',
        b'HTTP/1.0 200 OK\r\n\r\n[{"Id": "x", "Names": []}]',
        b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000,
        b"\xff" * 1000,
    ],
)
def test_nonsense_is_no_name(tmp_path: Path, reply: bytes) -> None:
    with serving(tmp_path / PATHS["docker"], lambda to: to.sendall(reply)):
        assert Names((tmp_path,)).of(KNOWN) == ""


def test_a_stale_socket_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / PATHS["docker"]
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    began_s = time.monotonic()
    assert Names((tmp_path,)).of(KNOWN) == ""
    assert time.monotonic() - began_s < PATIENCE_S


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can answer as another user")
def test_a_socket_of_another_user_is_not_believed(tmp_path: Path) -> None:
    # GIVEN a runtime below /run/user/1000 that user 2000 answers for
    path = tmp_path / "run/user/1000/podman/podman.sock"
    container = ids_of(REPLIES["podman"])["shop"]
    own = Container(container, f"/user.slice/user-1000.slice/libpod-{container}.scope")
    found = {}
    for uid in (2000, 1000):
        with _listening_as(uid, path) as server:
            answers = threading.Thread(target=_answer_once, args=(server, REPLIES["podman"]))
            answers.start()
            found[uid] = Names((tmp_path,)).of(own)
            answers.join()
        path.unlink()
    assert found == {2000: "", 1000: "shop"}


@contextmanager
def _listening_as(uid: int, path: Path) -> Iterator[socket.socket]:
    # The peer's user is whoever called listen(2).
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        os.seteuid(uid)
        try:
            server.listen()
        finally:
            os.seteuid(0)
        yield server


def _answer_once(server: socket.socket, reply: bytes) -> None:
    client, _ = server.accept()
    with client:
        if client.recv(4096):
            client.sendall(reply)


# -- directories of control groups


MOUNTS = """21 1 0:19 / /proc rw - proc proc rw
30 21 0:26 / {tree} rw,nosuid - cgroup2 cgroup2 rw
31 21 0:27 / {tree}/v1 rw - cgroup cgroup rw,memory
"""


def test_a_directory_is_believed_when_the_process_is_in_it(tmp_path: Path) -> None:
    tree, mounts = tmp_path / "with space", tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(tree=str(tree).replace(" ", "\\040")))
    below = tree / "a" / "docker-x.scope" / "init"
    below.mkdir(parents=True)
    (tree / "a" / "docker-x.scope" / "cgroup.procs").write_text("")
    (below / "cgroup.procs").write_text("12\n13\n")
    found = str(tree / "a" / "docker-x.scope")
    assert cgroups.directory_of("/a/docker-x.scope", [13, 99], mounts) == found
    assert cgroups.directory_of("/a/docker-x.scope", [99], mounts) == ""
    assert cgroups.directory_of("/b", [13], mounts) == ""
    assert cgroups.directory_of("/a/docker-x.scope", [13], tmp_path / "none") == ""


def test_of_a_tree_that_is_mounted_in_part(tmp_path: Path) -> None:
    tree, mounts = tmp_path / "tree", tmp_path / "mountinfo"
    mounts.write_text(f"30 21 0:26 /docker/x {tree} rw - cgroup2 cgroup2 rw\n")
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "cgroup.procs").write_text("12\n")
    assert cgroups.directory_of("/docker/x/sub", [12], mounts) == str(tree / "sub")
    assert cgroups.directory_of("/docker/xy", [12], mounts) == ""
    assert cgroups.directory_of("/sub", [12], mounts) == ""


# -- what a user names


def group(container: Container, *pids: int, unit: bool = False) -> targets._Group:
    return targets._Group(container, unit, {container.path: list(pids)})


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three containers, one machine and a service, all of them without a control group v2."""
    web, db = known(ID), known("0123" + OTHER[4:])
    groups = [
        group(web, 11, 12),
        group(db, 21),
        group(known(OTHER), 31),
        group(Container("vm-1", "/m", "vm-1"), 41),
        group(Container("nginx.service", "/s", "nginx.service"), 51, unit=True),
    ]
    names = {web.id: "web", db.id: "shop/db-0/db", OTHER: "stage/db-0/db"}
    monkeypatch.setattr(targets, "_groups", lambda: groups)
    monkeypatch.setattr(Names, "of", lambda self, each: each.name or names.get(each.id, ""))


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("words", "pids"),
    [
        (["web"], {11, 12}),
        ([ID], {11, 12}),
        (["01234"], {11, 12}),
        ([OTHER[:12]], {31}),
        (["shop/db-0/db"], {21}),
        (["vm-1"], {41}),
        (["nginx.service"], {51}),
        (["web", "vm-1"], {11, 12, 41}),
    ],
)
def test_containers_by_id_and_by_name(words: list[str], pids: set[int]) -> None:
    found = targets.in_containers(words)
    assert set(found.pids or ()) == pids
    assert not found.cgroups
    assert found.pids_called.startswith(f"container {','.join(words)} (")
    assert "later are not traced" in found.notes[0]
    assert "say --comm NAME or -L PORT instead" in found.notes[0]


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("0123", r"0123 could be one of web \(0123456789ab\), shop/db-0/db \(0123ba987654\)"),
        ("db", "db could be one of shop/db-0/db"),
        ("012", "no container 012 has a process here"),
        ("", "no container  has a process here"),
        ("we", "no container we has"),
        ("no\x1bwhere", "no container no"),
    ],
)
def test_what_is_not_clear_is_not_guessed(word: str, said: str) -> None:
    with pytest.raises(TargetError, match=said) as caught:
        targets.in_containers([word])
    assert "in full" in caught.value.hint or "there are web (0123456789ab)" in caught.value.hint


def test_where_no_container_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_groups", list)
    with pytest.raises(TargetError) as caught:
        targets.in_containers(["web"])
    assert "no process here is in a container" in caught.value.hint


@pytest.mark.usefixtures("there")
def test_what_several_choices_have_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "find_netns", lambda word: 5)
    monkeypatch.setattr(namespaces, "pids_in_netns", lambda number: frozenset((12, 13, 21)))
    whole = targets.choose([], [], ["blue"])
    assert (sorted(whole.pids or ()), sorted(whole.netns)) == ([12, 13, 21], [5])
    assert whole.pids_called == "netns blue (3 processes and children)"
    both = targets.choose([], ["web"], ["blue"])
    assert (sorted(both.pids or ()), sorted(both.netns)) == ([12], [])
    assert both.pids_called == (
        "container web (2 processes and children), netns blue (3 processes and children)"
    )
    assert targets.choose([12, 99], [], ["blue"]).pids == frozenset((12,))
    assert targets.choose([12], [], []) == targets.Targets(frozenset((12,)))
    with pytest.raises(TargetError, match="in all of pid 99 and netns blue"):
        targets.choose([99], [], ["blue"])
