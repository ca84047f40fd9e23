"""When a closed connection frees its port, in words, and what may put that off."""

from porttrace.tracer.facts import Holder


def or_later(each: Holder) -> str:
    """Return what may put off the moment at which a closed connection frees its port, "" none.

    An orphan in FIN_WAIT2 goes by its timer, or else begins TIME_WAIT once the other end closes.
    """
    return ", or 60 s after the other end closes" if each.state == "FIN_WAIT2" else ""
