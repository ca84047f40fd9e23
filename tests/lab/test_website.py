"""What the web site says of its logins: how long they took, and which failed."""

from porttrace.lab.workloads.truth import Attempt
from porttrace.lab.workloads.website import Page


def page(result: str) -> Page:
    login = Attempt("page-1", 7, "192.0.2.2:389", 0, 5_000_000, result)
    return Page(1, 0.4, 0.1, 5.0, login)


def test_a_login_that_failed_says_so() -> None:
    assert page("connected").words().startswith("page 1: login took 0.01 s (database 0.4 ms")
    assert page("ECONNREFUSED").words().startswith("page 1: login failed (ECONNREFUSED) after 0.01")
