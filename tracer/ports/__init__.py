"""Ports: which sockets have them, whose those are, and what this host says of them.

`holders` is the door for those who saw a bind fail.
"""

from porttrace.tracer.ports.lookup import EVERYTHING, Look, holders

__all__ = ["EVERYTHING", "Look", "holders"]
