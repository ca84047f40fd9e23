"""Containers that real runtimes started: runc, and podman with its API and its files.

Their root is the host's own files, mounted into an empty folder: no image is needed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from containers import LISTENING, WORKLOAD, Box, running_as, with_mounts
from tracing import Traced, running

pytestmark = pytest.mark.kernel

_CAPABILITIES = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_KILL"]


def need(*programs: str) -> None:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: sudo apt install podman runc")


def root_of(folder: Path) -> tuple[Path, list[str]]:
    """Return an empty root, and the folders of the host that the workload needs in it."""
    root = folder / "rootfs"
    root.mkdir()
    for entry in os.scandir("/"):
        if entry.is_symlink():  # /bin, /lib, ... lead to /usr
            (root / entry.name).symlink_to(os.readlink(entry.path))
    needed = {"/usr", sys.prefix, sys.base_prefix, str(Path(WORKLOAD).parents[2])}
    needed |= {path for path in ("/bin", "/lib", "/lib64") if not Path(path).is_symlink()}
    inner = {
        one for one in needed for two in needed if one != two and Path(one).is_relative_to(two)
    }
    return root, sorted(path for path in needed - inner if Path(path).is_dir())


def checked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def connects_of(made: Box, *options: str, before: list[str]) -> Traced:
    with running("-d", "60", *options, before=before) as tracer:
        assert made.ask(f"connect {LISTENING}") == 0
        return tracer.finish()


# -- runc


def bundle(folder: Path, number: str) -> None:
    _, shared = root_of(folder)
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        *({"destination": path, "source": path, "options": ["rbind", "ro"]} for path in shared),
    ]
    names = ("bounding", "effective", "permitted")
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": [sys.executable, WORKLOAD],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(names, _CAPABILITIES),
        },
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": each} for each in ("pid", "network", "ipc", "uts", "mount")],
            "cgroupsPath": f"/cri-containerd-{number}.scope",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def by_runc(tmp_path: Path) -> Iterator[Box]:
    need("runc")
    number = hashlib.sha256(str(tmp_path).encode()).hexdigest()
    bundle(tmp_path, number)
    state = ["--root", str(tmp_path / "state")]
    command = ["runc", *state, "run", "--bundle", str(tmp_path), number]
    try:
        with running_as(command, number) as made:
            yield made
    finally:
        subprocess.run(["runc", *state, "delete", "-f", number], check=False, timeout=20)


def test_a_container_of_runc(by_runc: Box) -> None:
    traced = connects_of(by_runc, before=[])
    (row,) = (row for row in traced.attempts if row["pid"] == by_runc.pid)
    assert (row["container"], row["ns_pid"]) == (by_runc.id[:12], 7)
    assert row["outcome"] == "established"


def test_a_container_of_runc_is_chosen_by_its_id(by_runc: Box) -> None:
    traced = connects_of(by_runc, "--container", by_runc.id[:8], before=[])
    assert [row["pid"] for row in traced.attempts] == [by_runc.pid]


# -- podman


def podman(folder: Path) -> list[str]:
    places = (("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp"))
    options = [word for name, place in places for word in (name, str(folder / place))]
    # runc, no systemd, and a storage that needs no mounts: what works on any host.
    return ["podman", *options, "--cgroup-manager=cgroupfs", "--runtime", "runc",
            "--storage-driver=vfs", "--events-backend=none"]  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is as short as podman wants it."""
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def by_podman(folder: Path) -> Iterator[Box]:
    need("podman", "runc", "conmon")
    root, shared = root_of(folder)
    (folder / "run/podman").mkdir(parents=True)
    volumes = [word for path in shared for word in ("-v", f"{path}:{path}:ro")]
    limits = [f"--ulimit={name}=1024:1024" for name in ("nofile", "nproc")]
    base = podman(folder)
    options = ["--name=shop", "--network=none", "--privileged", "--cidfile", str(folder / "id")]
    try:
        checked(*base, "create", "-i", *options, *limits, *volumes,
                "--rootfs", str(root), sys.executable, WORKLOAD)  # fmt: skip
        with running_as([*base, "start", "-ai", "shop"], (folder / "id").read_text()) as made:
            yield made
    finally:
        subprocess.run([*base, "rm", "-f", "-t", "0", "shop"], check=False, timeout=60)


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """Run podman's API; return what puts its socket in its place."""
    path = folder / "run/podman/podman.sock"
    command = [*podman(folder), "system", "service", "--time=60", f"unix://{path}"]
    with subprocess.Popen(command) as process:
        try:
            while not path.exists():
                assert process.poll() is None
                time.sleep(0.02)
            yield f"mount --bind {folder}/run /run"
        finally:
            process.terminate()


def assert_named(made: Box, setup: str) -> None:
    by_all = connects_of(made, before=with_mounts(setup, []))
    by_name = connects_of(made, "--container", "shop", before=with_mounts(setup, []))
    for traced in (by_all, by_name):
        (row,) = (row for row in traced.attempts if row["pid"] == made.pid)
        assert (row["container_name"], row["ns_pid"]) == ("shop", 7)
        assert row["container"] == made.id[:12]
    assert len(by_name.attempts) == 1


def test_podman_names_its_containers_by_its_api(by_podman: Box, folder: Path) -> None:
    with service(folder) as setup:
        assert_named(by_podman, setup)


def test_and_in_its_files(by_podman: Box, folder: Path) -> None:
    place = "/var/lib/containers/storage"
    setup = f"mount -t tmpfs none /var/lib && mkdir -p {place}"
    assert_named(by_podman, f"{setup} && mount --bind {folder}/root {place}")


# -- porttrace in a container itself

ASK = """
from porttrace.tracer.containers import Container
from porttrace.tracer.runtimes import Names, host_roots
print(*host_roots(), Names().of(Container("%s", "/x")))
"""


def test_from_within_a_container_the_files_of_the_host_are_asked(tmp_path: Path) -> None:
    # GIVEN process 1 with the files of a runtime, and us in a root without them
    number = hashlib.sha256(b"seen from within").hexdigest()
    stored = tmp_path / "storage/overlay-containers/containers.json"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps([{"id": number, "names": ["shop"]}]))
    root, shared = root_of(tmp_path)
    binds = [f"mkdir -p {root}{path} && mount --rbind {path} {root}{path}" for path in shared]
    place = "/var/lib/containers/storage"
    setup = [
        f"mount -t tmpfs none /var/lib && mkdir -p {place}",
        f"mount --bind {tmp_path}/storage {place}",
        f"mkdir {root}/proc && mount -t proc proc {root}/proc",
        *binds,
    ]
    inside = f"chroot {root} {sys.executable} -c '{ASK % number}'"
    done = subprocess.run(
        ["unshare", "--pid", "--mount", "--propagation", "private", "--fork", "--mount-proc",
         "sh", "-ec", " && ".join(setup) + f"; {inside}; true"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.stdout == "/ /proc/1/root shop\n", done.stderr
