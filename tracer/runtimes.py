"""What container runtimes call their containers: their files first, then their sockets.

Nothing here is needed to trace: without an answer a container keeps its id. Only GET requests
are made, each container is asked for once, and waiting for sockets that do not answer comes to
less than `PATIENCE_S` in all. Names are whatever a runtime says: whoever prints them escapes them.
"""

import contextlib
import json
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from porttrace.tracer.containers import Container

PATIENCE_S = 0.3
"""So long at most all requests that got no answer take together."""

_MOST_BYTES = 8 << 20
_MOST_LETTERS = 256
_MOST_NAMES = 10_000
# containerd, and what CRI-O and podman share, below the root of the host.
_BUNDLES = "run/containerd/io.containerd.runtime.v2.task"
_RUN = "run/containers/storage/overlay-containers"
_STORED = "var/lib/containers/storage"
_DOCKER = "var/lib/docker/containers"
# namespace, pod and container, as containerd's CRI plugin and CRI-O annotate them
_ANNOTATIONS = (
    ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
    ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
    ("io.kubernetes.cri.container-name", "io.kubernetes.container.name"),
)
_IMAGES = ("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName")
_SOCKETS = ("run/docker.sock", "run/podman/podman.sock")
_OWN_SOCKETS = ("run/user/{}/docker.sock", "run/user/{}/podman/podman.sock")
# HTTP/1.0: the answer is not cut into chunks, and ends where the connection does.
_REQUEST = b"GET /containers/json?all=true HTTP/1.0\r\nHost: localhost\r\n\r\n"

# What files and sockets of others do: vanish, refuse, hang, hold something else.
_NO_ANSWER = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


def host_roots() -> tuple[Path, ...]:
    """Return where files of the host can be seen: here, and from within a container there too.

    In a container that shares the host's process numbers, process 1 is the host's.
    """
    here, there = Path("/"), Path("/proc/1/root")
    with contextlib.suppress(OSError):
        if not os.path.samefile(here, there):
            return here, there
    return (here,)


class Names:
    """Finds and remembers the names of containers; `roots` differ from the host's in tests."""

    def __init__(self, roots: tuple[Path, ...] | None = None) -> None:
        self._roots = host_roots() if roots is None else roots
        self._names: dict[str, str] = {}  # every container that was asked for
        self._told: dict[str, str] = {}  # what sockets told, of others as well
        self._images: dict[str, str] = {}  # by the same keys: what came along with a name
        self._silent: set[Path] = set()
        self._patience_s = PATIENCE_S

    def of(self, container: Container) -> str:
        """Return what its runtime calls a container, "" when nobody says."""
        if container.name:
            return container.name
        key = f"{container.uid}/{container.id}"
        if max(len(self._names), len(self._told)) > _MOST_NAMES:
            self._names.clear()
            self._told.clear()
            self._images.clear()
        if key not in self._names:
            name = self._found(container, key)[:_MOST_LETTERS]
            # JSON can hold halves of characters, which no file takes.
            self._names[key] = name.encode(errors="backslashreplace").decode()
        return self._names[key]

    def image_of(self, container: Container) -> str:
        """Return what a container was made of, as its runtime says it; "" when nobody does."""
        self.of(container)
        image = self._images.get(f"{container.uid}/{container.id}", "")[:_MOST_LETTERS]
        return image.encode(errors="backslashreplace").decode()

    def ask_all(self) -> None:
        """Ask every runtime of the host now: without root's rights they may not answer later."""
        for root in self._roots:
            users = {
                int(path.name) for path in root.glob("run/user/[0-9]*") if path.name.isdecimal()
            }
            for uid in (0, *sorted(users)):
                for path in self._sockets(uid):
                    self._ask(path, uid)

    def _found(self, container: Container, key: str) -> str:
        # A user's own runtime keeps its files where he could plant anything: its socket alone.
        if not container.uid:
            for root in self._roots:
                name, image = _in_files(root, container.id)
                if name:
                    self._images[key] = image
                    return name
        for path in self._sockets(container.uid):
            if key not in self._told:
                self._ask(path, container.uid)
        return self._told.get(key, "")

    def _sockets(self, uid: int) -> Iterator[Path]:
        for root in self._roots:
            for name in _OWN_SOCKETS if uid else _SOCKETS:
                path = root / name.format(uid)
                if path not in self._silent and path.exists():
                    yield path

    def _ask(self, path: Path, uid: int) -> None:
        # Half of what is left, so that one which hangs does not use up the next one's time.
        began_s = time.monotonic()
        try:
            for each, name, image in list(_listed(path, uid, began_s + self._patience_s / 2)):
                self._told[f"{uid}/{each}"] = name
                self._images[f"{uid}/{each}"] = image
        except TimeoutError:
            self._silent.add(path)
            self._patience_s -= time.monotonic() - began_s
        except _NO_ANSWER:
            return


# -- files -------------------------------------------------------------------------


# Name and image.
def _in_files(root: Path, container: str) -> tuple[str, str]:
    for place in (root / _BUNDLES).glob(f"*/{container}"):
        found = _annotated(place / "config.json")
        if found[0]:
            return found
    found = _annotated(root / _RUN / container / "userdata/config.json")
    if found[0]:
        return found
    with contextlib.suppress(*_NO_ANSWER):
        said = json.loads(_contents(root / _DOCKER / container / "config.v2.json"))
        if said["Name"]:
            image = str((said.get("Config") or {}).get("Image") or "")
            return str(said["Name"]).removeprefix("/"), image
    for place in (root / _STORED).glob("*-containers"):
        with contextlib.suppress(*_NO_ANSWER):
            for each in json.loads(_contents(place / "containers.json")):
                if each["id"] == container:
                    return str(each["names"][0]), _stored_image(each)
    return "", ""


def _stored_image(each: dict[str, Any]) -> str:
    with contextlib.suppress(*_NO_ANSWER):
        return str(json.loads(each["metadata"])["image-name"])
    return ""


def _annotated(path: Path) -> tuple[str, str]:
    with contextlib.suppress(*_NO_ANSWER):
        said = json.loads(_contents(path))["annotations"]
        words = [str(said.get(one) or said.get(other) or "") for one, other in _ANNOTATIONS]
        image = next(filter(None, (said.get(each) for each in _IMAGES)), "")
        return "/".join(filter(None, words)), str(image)
    return "", ""


def _contents(path: Path) -> bytes:
    # Looked at before it is opened: to open a pipe is to wait for whoever writes to it.
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MOST_BYTES:
            raise ValueError("no file of a runtime")
        with open(f"/proc/self/fd/{handle}", "rb") as file:
            return file.read(_MOST_BYTES)
    finally:
        os.close(handle)


# -- sockets -----------------------------------------------------------------------


def _listed(path: Path, uid: int, until_s: float) -> Iterator[tuple[str, str, str]]:
    # Id, name and image of each container.
    for each in json.loads(_answer(path, uid, until_s)):
        names: Any = each["Names"]
        if names:
            yield str(each["Id"]), str(names[0]).removeprefix("/"), str(each.get("Image") or "")


def _answer(path: Path, uid: int, until_s: float) -> bytes:
    with socket.socket(socket.AF_UNIX) as asked:
        _wait(asked, until_s)
        asked.connect(str(path))
        _check_owner(asked, uid)
        asked.sendall(_REQUEST)
        parts = list(_received(asked, until_s))
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise ValueError("it will not say")
    return body


def _received(asked: socket.socket, until_s: float) -> Iterator[bytes]:
    left = _MOST_BYTES
    while left > 0:
        _wait(asked, until_s)
        part = asked.recv(min(left, 1 << 16))
        if not part:
            return
        left -= len(part)
        yield part
    raise ValueError("it says too much")


def _wait(asked: socket.socket, until_s: float) -> None:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    asked.settimeout(left_s)


def _check_owner(asked: socket.socket, uid: int) -> None:
    # A path below /run/user is its user's: what answers there must be his own.
    peer = asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", peer)[1] not in (0, uid):
        raise ValueError("somebody else answers")
