"""Pictures show what the tables say; nothing is drawn that is not there."""

from collections.abc import Callable, Iterator

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes

from builders import MS, S, events
from porttrace.analysis import plot
from porttrace.tracer.event import no_events
from recordings import story
from traces import recording_of


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    """Draw into memory, and leave no figure behind."""
    mpl.use("agg")
    yield
    pyplot.close("all")


def test_a_waterfall_has_a_bar_where_each_stood() -> None:
    told = events().connect(at=3 * S, held_ns=2 * S).syn_sent(S).established(after_ns=4 * S)
    axes = plot.waterfall(recording_of(told.array()))
    bars = [(round(b.get_x(), 3), round(b.get_width(), 3)) for b in axes.patches]  # type: ignore[attr-defined]
    assert bars == [(1.0, 2.0), (3.0, 1.0), (4.0, 4.0)]
    assert [each.get_text() for each in axes.get_yticklabels()] == ["client to 192.0.2.2:80"]
    assert axes.get_xlabel() == "time since the recording began (s)"
    legend = axes.get_legend()
    assert legend
    assert [each.get_text() for each in legend.get_texts()] == [
        "held at the gate", "held in connect", "in SYN_SENT",
    ]  # fmt: skip


def test_a_waterfall_of_one_process() -> None:
    told = events()
    told.connect(pid=7).syn_sent().established()
    told.connect(pid=8).syn_sent().established()
    assert plot.waterfall(recording_of(told.array()), pid=8).get_title() == "1 connection attempt"


def test_a_waterfall_of_many_has_no_names() -> None:
    axes = plot.waterfall(recording_of(story(80)))
    assert not axes.get_yticklabels()
    axes.figure.canvas.draw()


@pytest.mark.parametrize("comm", [b"$\\frac$", b"\x1b[2J", b"a_b^c"])
def test_odd_names_are_drawn_as_they_are(comm: bytes) -> None:
    told = events().connect(comm=comm).syn_sent().established()
    plot.waterfall(recording_of(told.array())).figure.canvas.draw()


def test_concurrency_has_a_line_each() -> None:
    told = events().connect(at=S).syn_sent(S).established(after_ns=S)
    axes = plot.concurrency(recording_of(told.array()), pid=7)
    wanted, flying = (line.get_xydata().tolist() for line in axes.lines)  # type: ignore[union-attr]
    assert wanted == [[0, 0], [1, 1], [3, 0], [100, 0]]
    assert flying == [[0, 0], [2, 1], [3, 0], [100, 0]]
    assert axes.get_title().endswith("process 7")


def test_latency_has_a_series_an_outcome() -> None:
    told = events()
    told.connect(at=S).syn_sent().established(after_ns=MS)
    told.connect(at=2 * S).syn_sent().failed(71, after_ns=2 * MS)
    told.connect(at=3 * S).syn_sent()
    told.connect(at=4 * S).fails_early(101)
    axes = plot.latency(recording_of(told.array()))
    labels = [str(line.get_label()) for line in axes.lines]
    assert labels == ["pending (1)", "established (1)", "failed (1)"]
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel().endswith("(s)")


@pytest.mark.parametrize("draw", [plot.waterfall, plot.concurrency, plot.latency])
def test_into_axes_of_ones_own(draw: Callable[..., Axes]) -> None:
    _, axes = pyplot.subplots()
    assert draw(recording_of(story()), ax=axes) is axes


def test_nothing_can_be_drawn_too() -> None:
    recording = recording_of(no_events())
    for draw in (plot.waterfall, plot.concurrency, plot.latency):
        draw(recording).figure.canvas.draw()


def test_who_may_share_has_a_field_for_each_answer() -> None:
    grid = pd.DataFrame({"none": ["no", "."], "both": ["yes", "one user"]}, index=["none", "both"])
    axes = plot.sharing(grid, "TCP")
    assert [each.get_text() for each in axes.texts] == ["no", "yes", ".", "one user"]
    assert len({patch.get_facecolor() for patch in axes.patches}) == len(axes.patches) == 4
    assert [each.get_text() for each in axes.get_yticklabels()] == ["none", "both"]
