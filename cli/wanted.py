"""The file of `porttrace ports --check`: YAML that lists the ports that services want.

Read with PyYAML's safe loader, as nodes: they know their line, and a key that stands twice shows.
"""

import pwd
from collections.abc import Callable
from typing import Any

import click
import yaml

from porttrace.analysis.port_check import Wanted
from porttrace.cli.iptext import ip_text

_MOST_BYTES = 1 << 20


class BadFile(click.ClickException):
    """The file cannot be used; says where."""

    exit_code = 2


def read_wanted(path: str) -> list[Wanted]:
    """Return the wanted ports in the order of the file. Raises BadFile with line and key."""
    return _Reader(path).read()


class _Reader:
    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> list[Wanted]:
        """Return them in the order of the file. Raises BadFile with line and key."""
        root = self._root()
        if not isinstance(root, yaml.MappingNode):
            raise self._bad(root, "", "a list under the key 'ports' is needed")
        listed = self._items(root, "", ("ports",)).get("ports")
        if not isinstance(listed, yaml.SequenceNode) or not listed.value:
            raise self._bad(listed or root, "ports", "a list of ports is needed")
        return [self._wanted(node, f"ports[{i}]") for i, node in enumerate(listed.value)]

    def _root(self) -> Any:
        try:
            with open(self._path, "rb") as file:
                text = file.read(_MOST_BYTES + 1)
            if len(text) > _MOST_BYTES:
                raise BadFile(f"{self._path}: more than {_MOST_BYTES} bytes")
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except OSError as error:
            raise BadFile(f"{self._path}: {error.strerror}") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            told = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise BadFile(f"{self._path}{where}: no YAML: {told}") from None
        except RecursionError:
            raise BadFile(f"{self._path}: nested too deep") from None

    def _items(self, node: Any, key: str, known: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.value:
            word = name.value if isinstance(name, yaml.ScalarNode) else "?"
            full = f"{key}.{word}" if key else word
            if word not in known:
                raise self._bad(name, full, f"no such key; there are {', '.join(known)}")
            if word in found:
                raise self._bad(name, full, "the key stands twice")
            found[word] = value
        return found

    def _wanted(self, node: Any, key: str) -> Wanted:
        if not isinstance(node, yaml.MappingNode):
            raise self._bad(node, key, "keys are needed, as in 'port: 8080'")
        items = self._items(node, key, tuple(_KEYS))
        if "port" not in items:
            raise self._bad(node, f"{key}.port", "the key is missing")
        values = {word: self._value(each, f"{key}.{word}", word) for word, each in items.items()}
        # SO_REUSEADDR: servers of TCP set it for their restarts; of UDP it gives the port away
        values.setdefault("reuseaddr", values.get("protocol") != "udp")
        uid = _uid(values.get("owner", ""))
        return Wanted(**values, uid=uid, line=node.start_mark.line + 1)

    def _value(self, node: Any, key: str, word: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self._bad(node, key, "one value is needed")
        try:
            value = yaml.SafeLoader("").construct_object(node)
            if word == "port":
                _as_written(node, value)
            return _KEYS[word](value)
        except (ValueError, yaml.YAMLError) as error:
            raise self._bad(node, key, str(error)) from None

    def _bad(self, node: Any, key: str, why: str) -> BadFile:
        line = f", line {node.start_mark.line + 1}" if node is not None else ""
        return BadFile(f"{self._path}{line}: {key + ': ' if key else ''}{why}")


def _uid(owner: str) -> int:
    if not owner:
        return -1
    try:
        return int(owner) if owner.isdecimal() else pwd.getpwnam(owner).pw_uid
    except (KeyError, ValueError):
        return -1


# YAML takes more for a number than people do, and what is quoted for a text.
def _as_written(node: Any, value: Any) -> None:
    text = node.value
    if isinstance(value, str) and node.style and text.isdecimal():
        raise ValueError(f"{text!r} is a text: write {text} without quotes")
    if isinstance(value, int) and not isinstance(value, bool) and text != str(value):
        raise ValueError(
            f"{text} is another number in YAML, {value}: write it without leading zeros, in digits"
        )


def _port(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise ValueError(f"{value!r} is no port: a number from 1 to 65535")
    return value


def _protocol(value: Any) -> str:
    if value not in ("tcp", "udp"):
        raise ValueError(f"{value!r} is no protocol: tcp or udp")
    return str(value)


def _ip(value: Any) -> str:
    import ipaddress

    try:
        return ip_text(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise ValueError(f"{value!r} is no IP address") from None


def _word(value: Any) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise ValueError(f"{value!r} is no name")
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


_KEYS: dict[str, Callable[[Any], Any]] = {
    "port": _port,
    "protocol": _protocol,
    "address": _ip,
    "owner": _word,
    "process": _word,
    "name": _word,
    "reuseaddr": _flag,
    "reuseport": _flag,
    "v6only": _flag,
    "capable": _flag,
    "served": _flag,
}
