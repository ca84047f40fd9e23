"""What travels between machines: the sum of one recording, and what could not be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from porttrace.analysis.fleet.sketch import Sketch
from porttrace.analysis.fleet.tally import Tally

MOST_FINDINGS = 40
"""So many findings of one recording travel, the gravest; all of them are counted."""
MOST_FACTS = 300
MOST_LETTERS = 200
"""So long are the names that travel."""
MOST_WORDS = 500
"""So long are the sentences."""


@dataclass(frozen=True, order=True)
class Throttle:
    """The signature by which throttles on different hosts are the same; "" and 0 where it has none.

    `rule` is that of its finding: serialized-connects, limited-connects or paced-connects.
    """

    rule: str
    place: str = ""
    scope: str = ""
    slots: int = 0
    mechanism: str = ""


@dataclass(frozen=True)
class Found:
    """A finding, without its parties and its evidence."""

    rule: str
    severity: str
    confidence: float
    summary: str


@dataclass(frozen=True)
class About:
    """Where one recording comes from, and how far it goes."""

    path: str
    host: str
    kernel: str
    mode: str  # hook mode
    wire: bool
    gates_seen: bool
    kind: str  # trace or parquet
    start_s: float  # by the wall clock, Unix time; 0 not known
    duration_s: float
    events: int
    lost_events: int
    complete: bool
    size: int = 0  # of the file, bytes


@dataclass(frozen=True)
class Slice:
    """One recording of one host, summed up: tens of kB, whatever its size."""

    about: About
    attempts: int = 0
    failed: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    held_ns: int = 0
    total_ns: int = 0
    held: Sketch = field(default_factory=Sketch)  # held on the host, of all attempts
    answer: Sketch = field(default_factory=Sketch)  # SYN to outcome of those established
    total: Sketch = field(default_factory=Sketch)  # first mark to outcome
    destinations: Tally = field(default_factory=Tally)
    programs: Tally = field(default_factory=Tally)
    images: Tally = field(default_factory=Tally)
    places: Tally = field(default_factory=Tally)
    findings: tuple[Found, ...] = ()
    by_rule: Mapping[tuple[str, str], int] = field(default_factory=dict)  # rule and severity
    throttles: frozenset[Throttle] = frozenset()
    facts: frozenset[tuple[str, str]] = frozenset()  # what it is about, and what was found
    census: bool = False  # whether suspects were looked for at all


@dataclass(frozen=True)
class Skipped:
    """A recording of which nothing is known: which, and why, in one sentence."""

    path: str
    why: str
    hint: str = ""
