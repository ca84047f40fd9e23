"""One pair of hosts with servers for each test module of the lab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from porttrace.lab.site import Site, open_site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Yield hosts and servers that last for one test module."""
    with open_site() as opened:
        yield opened
