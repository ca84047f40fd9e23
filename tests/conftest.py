"""Kernel tests: last in the run, and skipped with a sentence where they cannot work.

Under scripts/test two processes share the tests. All that trace, throttle or time something
stay in one, so that they never see each other's; other kernels, browsers and plain tests of the
analysis go beside them.

What drives a real kernel or browser on a busy machine is made again once where it fails, and the
end of the run says which: a neighbour's load is no fault, and what fails twice is.

PORTTRACE_RUN_KERNEL_TESTS=1 makes them fail there instead, so that CI cannot
leave them out unnoticed.
"""

import functools
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from porttrace.tracer import features
from porttrace.tracer.errors import PorttraceError

_REAL = ("browser", "kernel", "vm")
_TRACE_OR_TIME = ("bench", "kernel", "lab", "tracer")
_ALONE_IN_NAMESPACES = "tests/lab/test_packets.py"

# No example database: the checkout may be root's or another user's. No deadline:
# a machine under load is no fault.
settings.register_profile(
    "porttrace", database=None, deadline=None, derandomize=os.environ.get("CI") == "true"
)
settings.load_profile("porttrace")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_is_kernel_test)
    for item in items:
        if any(item.get_closest_marker(mark) for mark in _REAL):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture
def hangups() -> Iterator[None]:
    """SIGHUP comes through, also where the tests were begun with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class _TwoSides(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    def _split_scope(self, nodeid: str) -> str:
        # tests/kernel/test_wire.py::test_...
        apart = nodeid.startswith(_ALONE_IN_NAMESPACES)
        return "here" if nodeid.split("/")[1] in _TRACE_OR_TIME and not apart else "apart"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _TwoSides:
    return _TwoSides(config, log)


@pytest.hookimpl(tryfirst=True)  # before the fixtures of the test
def pytest_runtest_setup(item: pytest.Item) -> None:
    obstacle = _obstacle() if _is_kernel_test(item) else ""
    if not obstacle:
        return
    if os.environ.get("PORTTRACE_RUN_KERNEL_TESTS") == "1":
        pytest.fail(obstacle, pytrace=False)
    pytest.skip(obstacle)


def _is_kernel_test(item: pytest.Item) -> bool:
    return item.get_closest_marker("kernel") is not None


@functools.cache
def _obstacle() -> str:
    # What keeps this host from tracing, "" for nothing.
    if os.geteuid() != 0:
        return "kernel tests need root: scripts/test runs them through sudo"
    try:
        features.require()
    except PorttraceError as error:
        return f"{error.message} (hint: {error.hint})"
    return ""
