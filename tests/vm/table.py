"""Turns reports of pytest (junit XML) into the table of docs/kernels.md."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BEGIN = "<!-- written by scripts/vm --all -->"
END = "<!-- end of what scripts/vm wrote -->"
NO_SUCH_MODE = "not on this kernel"
_WORDS = {"failure": "FAIL", "error": "FAIL", "skipped": "skip"}
_REASON_LENGTH = 160


@dataclass(frozen=True)
class Case:
    """What one test gave: `word` is ok, FAIL or skip; `reason` why, "" when ok."""

    word: str
    reason: str = ""


@dataclass(frozen=True)
class Column:
    """One kernel in one hook mode.

    cases: by the name of the test; note: why there are none; time_s: what the tests took.
    """

    release: str
    mode: str
    cases: dict[str, Case] = field(default_factory=dict)
    note: str = ""
    time_s: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether a test failed, or none ran though the mode is there."""
        if self.note:
            return self.note != NO_SUCH_MODE
        return any(case.word == "FAIL" for case in self.cases.values())


def read(path: Path, release: str, mode: str) -> Column:
    """Return a column from a report, or from the note (.txt) why there is none."""
    if path.suffix == ".txt":
        return Column(release, mode, note=path.read_text().strip())
    root = ET.parse(path).getroot()
    cases = {_name(each): _case(each) for each in root.iter("testcase")}
    time_s = sum(float(each.get("time", 0)) for each in root.iter("testsuite"))
    return Column(release, mode, cases, time_s=time_s)


def write(page: Path, columns: Sequence[Column]) -> None:
    """Put the tables of these columns between the marks in the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{render(columns)}\n{END}{after}")


def render(columns: Sequence[Column]) -> str:
    """Return the summary, the table of every test, and why some failed or were left out."""
    return "\n".join([*_summary(columns), "", *_tests(columns), "", *_reasons(columns)])


def _name(case: ET.Element) -> str:
    module = case.get("classname", "").removeprefix("tests.").replace(".", "/")
    return f"{module}::{case.get('name', '')}"


def _case(case: ET.Element) -> Case:
    for child in case:
        if child.tag in _WORDS:
            return Case(_WORDS[child.tag], child.get("message", "").strip())
    return Case("ok")


def _summary(columns: Sequence[Column]) -> Iterator[str]:
    yield "| kernel | mode | passed | failed | skipped | minutes | |"
    yield "|---|---|--:|--:|--:|--:|---|"
    for each in columns:
        words = Counter(case.word for case in each.cases.values())
        counts = " | ".join(str(words[word]) for word in ("ok", "FAIL", "skip"))
        minutes = f"{each.time_s / 60:.0f}"
        yield f"| {each.release} | {each.mode} | {counts} | {minutes} | {_cell(each.note)} |"


def _tests(columns: Sequence[Column]) -> Iterator[str]:
    # One row a test, in the order in which pytest ran them.
    heads = " | ".join(f"{each.release.split('-')[0]} {each.mode}" for each in columns)
    yield f"| test | {heads} |"
    yield "|---|" + "---|" * len(columns)
    for name in dict.fromkeys(name for each in columns for name in each.cases):
        words = " | ".join(each.cases.get(name, Case("")).word for each in columns)
        yield f"| `{_cell(name)}` | {words} |"


def _reasons(columns: Sequence[Column]) -> Iterator[str]:
    for each in columns:
        for name, case in each.cases.items():
            if case.word != "ok":
                reason = case.reason.splitlines()[0] if case.reason else ""
                where = f"{each.release} {each.mode}"
                yield f"- {where}: `{name}` {case.word}: `{reason[:_REASON_LENGTH]}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
