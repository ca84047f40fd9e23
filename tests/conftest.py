"""Kernel tests: last in the run, and skipped with a sentence where they cannot work.

Under scripts/test two processes share the tests. All that trace, throttle or time something
stay in one, so that they never see each other's; other kernels, browsers and plain tests of the
analysis go beside them.

PORTTRACE_RUN_KERNEL_TESTS=1 makes them fail there instead, so that CI cannot
leave them out unnoticed.
"""

import functools
import os
from pathlib import Path

import pytest
from hypothesis import settings

from porttrace.tracer import features
from porttrace.tracer.errors import PorttraceError

_TESTS = Path(__file__).parent

# No example database: the checkout may be root's or another user's. No deadline:
# a machine under load is no fault.
settings.register_profile(
    "porttrace", database=None, deadline=None, derandomize=os.environ.get("CI") == "true"
)
settings.load_profile("porttrace")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_is_kernel_test)
    for item in items:
        group = "apart" if _touches_no_kernel(item) else "here"
        item.add_marker(pytest.mark.xdist_group(group))


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


def _touches_no_kernel(item: pytest.Item) -> bool:
    folder = item.path.relative_to(_TESTS).parts[0]
    return not _is_kernel_test(item) and folder not in ("bench", "kernel", "lab", "tracer")


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
