"""The collision matrix as it was measured: where it differs from the rules, and its tables.

Each trial is one first and one second socket, really made (`porttrace lab binds`). Nothing here
knows what should come out but `sharing.predict`; the tables show what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from porttrace.analysis.sharing import Call, Claim, predict

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

YES, NO, ONE_USER, MIXED, NOT_REACHED = "yes", "no", "one user", "mixed", "."


@dataclass(frozen=True)
class Trial:
    """One cell: what came of the second socket's call beside a first socket."""

    call: Call
    state: str  # of the first socket, in the lab's words: also "client" and "accepted"
    at_bind: Claim  # the first socket when the second one bound
    first: Claim  # the first socket at the call
    second: Claim
    first_place: str  # where each was bound, in words
    second_place: str
    errno: int | None  # 0: it worked; None: the second could not bind, so it never came to listen
    first_errno: int = 0  # the first could not come into its state, with the second one bound

    @property
    def predicted(self) -> int | None:
        """Return what should have come of it by rule."""
        if self.call == "listen" and predict(self.at_bind, self.second):
            return None
        return predict(self.first, self.second, self.call)

    @property
    def one_user(self) -> bool:
        """Tell whether one user made both sockets."""
        return self.first.uid == self.second.uid

    @property
    def with_options(self) -> bool:
        """Tell whether either socket had set an option for sharing."""
        return options(self.first) != "none" or options(self.second) != "none"


@dataclass(frozen=True)
class Grid:
    """A table: rows for the first socket, columns for the second; all cells are words."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def options(claim: Claim) -> str:
    """Name the options for sharing that a socket has set."""
    names = [
        name
        for name, is_set in (("REUSEADDR", claim.reuseaddr), ("REUSEPORT", claim.reuseport))
        if is_set
    ]
    return "both" if len(names) == 2 else "".join(names) or "none"


def disagreements(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials in which the kernel did otherwise than `predict` says."""
    return [trial for trial in trials if trial.first_errno or trial.errno != trial.predicted]


def option_grids(trials: Sequence[Trial]) -> list[Grid]:
    """Return what options do where the addresses collide, one table for states that fare alike.

    `one user` means that it works if one user made both sockets; `.` that it is never reached.
    """
    collide = {_places(trial) for trial in trials if _collides(trial)}
    found: list[Grid] = []
    for (protocol, call), some in _grouped(trials, lambda t: (t.first.protocol, t.call)).items():
        alike: dict[Grid, list[str]] = {}
        for state, trials_of in _grouped(some, lambda t: t.state).items():
            meeting = [trial for trial in trials_of if _places(trial) in collide]
            alike.setdefault(_grid(meeting, _by_options, _answer), []).append(state)
        what = f"{protocol.upper()}, the second calls {call}, the first is"
        found += [replace(grid, title=f"{what} {_or(names)}") for grid, names in alike.items()]
    return found


def address_grids(trials: Sequence[Trial]) -> list[Grid]:
    """Return which addresses collide when no option is set, one table for states that agree."""
    plain = [trial for trial in trials if trial.call == "bind" and not trial.with_options]
    alike: dict[Grid, list[str]] = {}
    for (protocol, state), some in _grouped(plain, lambda t: (t.first.protocol, t.state)).items():
        name = f"{state} ({protocol.upper()})"
        alike.setdefault(_grid(some, _by_places, _collision), []).append(name)
    return [replace(grid, title=f"The first is {_or(names)}") for grid, names in alike.items()]


def _collides(trial: Trial) -> bool:
    return trial.call == "bind" and not trial.with_options and trial.errno != 0


def _places(trial: Trial) -> tuple[str, ...]:
    return (trial.first.protocol, trial.state, trial.first_place, trial.second_place)


def _by_options(trial: Trial) -> tuple[str, str]:
    return options(trial.first), options(trial.second)


def _by_places(trial: Trial) -> tuple[str, str]:
    return trial.first_place, trial.second_place


def _grid(
    trials: Iterable[Trial],
    ends: Callable[[Trial], tuple[str, str]],
    word: Callable[[Iterable[Trial]], str],
) -> Grid:
    cells = _grouped(trials, ends)
    rows = list(dict.fromkeys(first for first, _ in cells))
    columns = tuple(dict.fromkeys(second for _, second in cells))
    lines = tuple((row, tuple(word(cells[row, column]) for column in columns)) for row in rows)
    return Grid("", columns, lines)


# Works: for both kinds of users, for one user only, or not at all. Anything else is no rule.
def _answer(trials: Iterable[Trial]) -> str:
    by_user = {
        user: {_works(trial) for trial in some}
        for user, some in _grouped(trials, lambda t: t.one_user).items()
    }
    if all(answers == {None} for answers in by_user.values()):
        return NOT_REACHED
    same, other = ({bool(works) for works in by_user[user]} for user in (True, False))
    words = {(True, True): YES, (True, False): ONE_USER, (False, False): NO}
    if len(same) > 1 or len(other) > 1:
        return MIXED
    return words.get((same.pop(), other.pop()), MIXED)


def _collision(trials: Iterable[Trial]) -> str:
    answers = {trial.errno == 0 for trial in trials}
    return MIXED if len(answers) > 1 else YES if answers.pop() else NO


def _works(trial: Trial) -> bool | None:
    return None if trial.errno is None else trial.errno == 0


def _or(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _grouped(trials: Iterable[Trial], key: Callable[[Trial], _Key]) -> dict[_Key, list[Trial]]:
    groups: dict[_Key, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(key(trial), []).append(trial)
    return groups
