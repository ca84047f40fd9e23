"""What /proc says is read whole, whatever a process calls itself and whenever it goes."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from porttrace.tracer import processes
from porttrace.tracer.facts import Process
from porttrace.tracer.processes import exists, preloaded, read_process, thread_group, user_name

ID = "0123456789abcdef" * 4


def fake(proc: Path, pid: int = 7, **files: bytes | str) -> Path:
    """Write files of one process; `status_` keys are lines of its status."""
    base = proc / str(pid)
    base.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (base / name).write_bytes(data)
    return base


STATUS = "Name:\tx\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\nPPid:\t3\nUid:\t33\t33\t33\t33\n"


def test_a_whole_process(tmp_path: Path) -> None:
    base = fake(tmp_path, comm="agent\n", cmdline="/opt/agent\0--poll\0", status=STATUS)
    (base / "exe").symlink_to("/opt/agent")
    (base / "ns").mkdir()
    (base / "ns" / "net").write_text("")
    (base / "cgroup").write_text("0::/system.slice/agent.service\n")
    assert read_process(7, tmp_path) == Process(
        pid=7,
        ppid=3,
        comm="agent",
        exe="/opt/agent",
        cmdline="/opt/agent --poll",
        uid=33,
        user=user_name(33),
        cgroup="/system.slice/agent.service",
        netns=(base / "ns" / "net").stat().st_ino,
        container_name="agent.service",
    )


def test_a_process_that_is_gone(tmp_path: Path) -> None:
    assert read_process(7, tmp_path) == Process(pid=7, user=user_name(0))


def test_a_process_that_goes_while_it_is_read(tmp_path: Path) -> None:
    assert read_process(7, fake(tmp_path, comm="agent\n").parent).comm == "agent"


def test_our_own_process() -> None:
    own = read_process(os.getpid())
    assert (own.pid, own.ppid, own.uid) == (os.getpid(), os.getppid(), os.getuid())
    assert own.comm == Path("/proc/self/comm").read_text().rstrip("\n")
    assert own.exe == os.readlink("/proc/self/exe")
    assert own.netns == os.stat("/proc/self/ns/net").st_ino
    assert own.cmdline.startswith(sys.executable.split("/")[0])


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/docker/{ID}", ID),
        (f"/system.slice/docker-{ID}.scope", ID),
        (f"/system.slice/docker-{ID}.scope/init", ID),
        (f"/kubepods/burstable/pod4c1f/{ID}", ID),
        (f"/kubepods.slice/kubepods-pod4c1f.slice/cri-containerd-{ID}.scope", ID),
        (f"/kubepods-besteffort-pod4c1f.slice:cri-containerd:{ID}", ID),
        (f"/kubepods.slice/kubepods-pod4c1f.slice/crio-{ID}.scope/container", ID),
        (f"/k8s.io/{ID}", ID),
        (f"/machine.slice/libpod-{ID}.scope", ID),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
            ID,
        ),
        (f"/machine.slice/libpod-conmon-{ID}.scope", ""),
        (f"/crio-conmon-{ID}.scope", ""),
        (f"/docker/{ID}0", ""),
        (f"/docker/{ID[:-1]}", ""),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/", ""),
    ],
)
def test_containers(tmp_path: Path, path: str, container: str) -> None:
    fake(tmp_path, cgroup=f"0::{path}\n")
    assert read_process(7, tmp_path).container == container[:12]


@pytest.mark.parametrize(
    ("text", "cgroup"),
    [
        ("0::/a\n", "/a"),
        ("12:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/xyz\n0::/\n", "/docker/xyz"),
        ("4:memory:/long/path\n0::/v2\n", "/v2"),
        ("0::/with:colon\n", "/with:colon"),
        ("", ""),
        ("nonsense\n", ""),
    ],
)
def test_cgroups(tmp_path: Path, text: str, cgroup: str) -> None:
    fake(tmp_path, cgroup=text)
    assert read_process(7, tmp_path).cgroup == cgroup


def test_hostile_names_are_kept_as_they_are(tmp_path: Path) -> None:
    # the kernel escapes newlines in the Name of status, nothing else
    name = b"\x1b[2J\xff\x0bUid:\t0"
    fake(tmp_path, comm=name + b"\n", cmdline=name + b"\0\xe2\x80\xae\0", status=b"Name:\t" + name)
    process = read_process(7, tmp_path)
    assert os.fsencode(process.comm) == name
    assert os.fsencode(process.cmdline) == name + b" \xe2\x80\xae"
    assert (process.uid, process.ppid) == (0, 0)


def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    for separator in ("\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"):
        fake(tmp_path, status=STATUS + f"Last:\t{separator}PPid:\t1{separator}Uid:\t0\n")
        process = read_process(7, tmp_path)
        assert (process.ppid, process.uid) == (3, 33)


def test_a_long_command_line_is_cut(tmp_path: Path) -> None:
    fake(tmp_path, cmdline="x" * 100_000)
    assert len(read_process(7, tmp_path).cmdline) == 4096


def test_users() -> None:
    assert user_name(0) == "root"
    assert user_name(4_000_000_000) == "4000000000"


# -- who is there


def test_a_living_process_exists() -> None:
    assert exists(os.getpid())
    assert not exists(2**22 + 1)


def test_a_zombie_does_not() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not exists(pid)
    os.waitpid(pid, 0)


def test_a_thread_is_no_process() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        assert thread.native_id
        assert not exists(thread.native_id)
        assert thread_group(thread.native_id) == os.getpid()
    finally:
        go.set()
        thread.join()
    assert thread_group(2**22 + 1) == 0


# -- preloaded libraries


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that defines connect(), as a preloaded shim does."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: no library can be built")
    library = tmp_path_factory.mktemp("shim") / "libshim.so"
    source = "int connect(int a, const void *b, unsigned c) { return -1; }"
    build = ["gcc", "-shared", "-fPIC", "-xc", "-", "-o", str(library)]
    subprocess.run(build, input=source, text=True, check=True)
    return library


def mapped(base: Path, library: Path, path: str) -> None:
    inside = base / "root" / path.lstrip("/")
    inside.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(library, inside)
    line = f"7f0000000000-7f0000001000 r-xp 00000000 08:01 42                 {path}\n"
    with open(base / "maps", "a") as maps:
        maps.write(f"7ffc00000000-7ffc00001000 rw-p 00000000 00:00 0          [stack]\n{line}")


@pytest.mark.parametrize(
    "asked", ["/opt/a/libshim.so", "libshim.so", "other.so:libshim.so", "x libshim.so"]
)
def test_a_preloaded_library_is_found(tmp_path: Path, shim: Path, asked: str) -> None:
    base = fake(tmp_path, environ=f"HOME=/\0LD_PRELOAD={asked}\0PATH=/bin\0")
    mapped(base, shim, "/opt/a/libshim.so")
    assert preloaded(base) == ("/opt/a/libshim.so",)


def test_so_is_one_of_the_whole_host(tmp_path: Path, shim: Path) -> None:
    base = fake(tmp_path, environ="HOME=/\0")
    mapped(base, shim, "/opt/a/libshim.so")
    assert preloaded(base) == ()
    (base / "root" / "etc").mkdir()
    (base / "root" / "etc" / "ld.so.preload").write_text("/opt/a/libshim.so\n")
    assert preloaded(base) == ("/opt/a/libshim.so",)


def test_asked_for_but_not_there(tmp_path: Path, shim: Path) -> None:
    base = fake(tmp_path, environ="LD_PRELOAD=libshim.so\0")
    assert preloaded(base) == ()
    mapped(base, shim, "/opt/a/libother.so")
    assert preloaded(base) == ()


def test_hostile_maps(tmp_path: Path, shim: Path) -> None:
    base = fake(tmp_path, environ="LD_PRELOAD=libshim.so\0")
    with open(base / "maps", "wb") as maps:
        maps.write(b"7f00-7f01 r-xp 0 08:01 42 /tmp/a\x0b/b\xff\n/\n7f00-7f01 r-xp 0 08:01 4/2\n")
    mapped(base, shim, "/opt/ \x0b/libshim.so")
    assert preloaded(base) == ("/opt/ \x0b/libshim.so",)


def test_a_real_process_with_a_preloaded_library(shim: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"], env={**os.environ, "LD_PRELOAD": str(shim)})
    try:
        while str(shim) not in Path(f"/proc/{sleeper.pid}/maps").read_text():
            pass
        assert processes.read_process(sleeper.pid).preloads == (str(shim),)
    finally:
        sleeper.kill()
        sleeper.wait()
