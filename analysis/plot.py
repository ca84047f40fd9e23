"""Pictures of a recording, for notebooks: each function draws into an Axes and returns it.

matplotlib is imported when something is drawn (`pip install porttrace[notebook]`). The colours
(Okabe and Ito's) are told apart by everyone, and none is the only thing that tells two apart.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from porttrace.analysis import names, sampletables, tables
from porttrace.analysis.concurrency import demand, in_flight
from porttrace.analysis.model import Attempts, Outcome, Trace
from porttrace.analysis.recording import Recording
from porttrace.analysis.render.escape import clipped
from porttrace.tracer.errors import PorttraceError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

_PLACES = {
    "user": ("#cccccc", "asleep in user code", ""),
    "gate": ("#d55e00", "held at the gate", "///"),
    "connect": ("#e69f00", "held in connect", "..."),
    "beyond": ("#0072b2", "in SYN_SENT", ""),
}
_OUTCOMES = {
    Outcome.established: ("#009e73", "o"),
    Outcome.refused: ("#d55e00", "x"),
    Outcome.timed_out: ("#000000", "v"),
    Outcome.cancelled: ("#cc79a7", "s"),
    Outcome.pending: ("#56b4e9", ">"),
}
_OTHERS = ("#e69f00", "D")
_ANSWERS = {"yes": "#009e73", "one user": "#f0e442", "no": "#d55e00", "mixed": "#cc79a7"}
_NAMED = 60  # attempts whose names can be read beside their bars
_LABEL = 44  # columns of such a name


def waterfall(recording: Recording, pid: int | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw each attempt as a bar over the time of the recording, coloured by where it stood.

    One attempt a row, the first on top; only those of process `pid` when it is given. The
    horizontal axis is in seconds since the recording began.
    """
    trace, ax = recording.trace, _axes(ax)
    frame = tables.attempts(trace)
    frame = frame[frame["pid"] == pid] if pid is not None else frame
    row = np.arange(len(frame))
    for place, (colour, label, hatch) in _PLACES.items():
        length = frame[f"wait_{place}_ns"].to_numpy() / 1e9
        left = (_begin_ns(frame, place) - trace.start_ns) / 1e9
        there = length > 0
        if not there.any():
            continue
        ax.barh(
            row[there], length[there], left=left[there], height=0.8, color=colour, label=label,
            hatch=hatch, edgecolor="white" if hatch else colour, linewidth=0.8,
        )  # fmt: skip
    ax.set_xlim(0, max(trace.end_ns - trace.start_ns, 1) / 1e9)
    ax.set_ylim(max(len(frame), 1) - 0.5, -0.5)
    _name_rows(ax, frame)
    ax.set_xlabel("time since the recording began (s)")
    ax.set_title(names.count(len(frame), "connection attempt"))
    if len(frame):
        ax.legend(loc="upper right")
    return ax


# Where the stretch at `place` begins, ns; any number where there is none.
def _begin_ns(frame: pd.DataFrame, place: str) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    mark = {"user": "sleep_ns", "gate": "gate_ns", "connect": "call_ns", "beyond": "syn_ns"}[place]
    return frame[mark].to_numpy(np.int64, na_value=0)


def _name_rows(ax: "Axes", frame: pd.DataFrame) -> None:
    if len(frame) > _NAMED:
        ax.set_ylabel("attempts, in the order of their calls")
        ax.set_yticks([])
        return
    pairs = zip(frame["comm"], frame["destination"], strict=True)
    # A name may hold what matplotlib would take for a formula.
    labels = [clipped(f"{comm} to {where}", _LABEL) for comm, where in pairs]
    ax.set_yticks(np.arange(len(frame)), labels, parse_math=False)
    ax.set_ylabel("thread and destination")


def concurrency(recording: Recording, pid: int | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw how many attempts were in flight and how many wanted to be, over time.

    Of process `pid`, or of everything that was traced. What lies between the two lines was held:
    it wanted to connect, and no SYN was sent.
    """
    trace, ax = recording.trace, _axes(ax)
    from matplotlib.ticker import MaxNLocator

    rows = trace.attempts if pid is None else trace.attempts[trace.attempts["pid"] == pid]
    wanted = _staircase(demand(rows, "host", trace.end_ns), trace)
    flying = _staircase(in_flight(rows, "host", trace.end_ns), trace)
    ax.step(*wanted, where="post", color="#d55e00", linestyle="--", label="demand")
    ax.step(*flying, where="post", color="#0072b2", linewidth=2, label="in flight (SYN_SENT)")
    ax.set_xlabel("time since the recording began (s)")
    ax.set_ylabel("attempts at once")
    ax.set_title("demand and attempts in flight" + (f", process {pid}" if pid is not None else ""))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper right")
    return ax


def _staircase(steps: Attempts, trace: Trace) -> tuple[list[float], list[int]]:
    # From the beginning of the trace to its end, so that quiet stretches show.
    times = np.concatenate([[trace.start_ns], steps["time_ns"], [trace.end_ns]])
    counts = np.concatenate([[0], steps["count"], steps["count"][-1:] if len(steps) else [0]])
    return ((times - trace.start_ns) / 1e9).tolist(), counts.tolist()


def latency(recording: Recording, ax: "Axes | None" = None) -> "Axes":
    """Draw for each attempt that sent a SYN how long it took from there to its end, and how.

    The vertical axis is logarithmic, in seconds: answers of a network lie in one band, and those
    that took a SYN sent again stand above it, at a second and more.
    """
    trace, ax = recording.trace, _axes(ax)
    rows = trace.attempts[trace.attempts["syn_ns"] > 0]
    end_ns = np.where(rows["end_ns"] > 0, rows["end_ns"], trace.end_ns)
    took_s = np.maximum(end_ns - rows["syn_ns"], 1) / 1e9
    start_s = (rows["syn_ns"] - trace.start_ns) / 1e9
    for code in np.unique(rows["outcome"]).tolist():
        colour, marker = _OUTCOMES.get(Outcome(code), _OTHERS)
        these = rows["outcome"] == code
        ax.plot(
            start_s[these], took_s[these], marker, color=colour, alpha=0.8,
            label=f"{Outcome(code).name} ({int(these.sum())})",
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_xlabel("time since the recording began (s)")
    ax.set_ylabel("from the SYN to the end (s)")
    ax.set_title("how long attempts took, and how they ended")
    if len(rows):
        ax.legend(loc="best")
    return ax


def sharing(grid: pd.DataFrame, title: str = "", ax: "Axes | None" = None) -> "Axes":
    """Draw a table of `sharing_frame`: a coloured field with its word for each cell."""
    ax = _axes(ax)
    for row, (_, words) in enumerate(grid.iterrows()):
        for column, word in enumerate(words):
            ax.add_patch(_field(row, column, _ANSWERS.get(word, "#ffffff")))
            ax.text(column, row, word, ha="center", va="center")
    ax.set_xlim(-0.5, grid.shape[1] - 0.5)
    ax.set_ylim(grid.shape[0] - 0.5, -0.5)
    ax.set_xticks(range(grid.shape[1]), list(grid.columns))
    ax.set_yticks(range(grid.shape[0]), list(grid.index))
    ax.set_xlabel("second socket")
    ax.set_ylabel("first socket")
    ax.set_title(title)
    return ax


def _field(row: int, column: int, colour: str) -> "Patch":
    from matplotlib.patches import Rectangle

    corner = (column - 0.5, row - 0.5)
    return Rectangle(corner, 1, 1, facecolor=colour, edgecolor="black", alpha=0.5)


def port_use(recording: Recording, ax: "Axes | None" = None) -> "Axes":
    """Draw the local ports in use towards each destination, and how many there are, over time.

    The dotted line is the number of ports, the dashed one 80 % of it; crosses are connects that
    got none. The horizontal axis is in seconds since the recording began.
    """
    trace, ax = recording.trace, _axes(ax)
    frame = sampletables.port_use(trace)
    for (source, to), group in frame.groupby(["source", "destination"]):
        ax.plot(group["time_s"], group["taken"], marker="o", label=f"{source} to {to}")
    if len(frame):
        ports = int(frame["ports"].max())
        ax.axhline(ports, color="black", linestyle=":", label=f"{ports} ports")
        ax.axhline(0.8 * ports, color="black", linestyle="--", linewidth=0.8, label="80 %")
        lacking = trace.attempts[trace.attempts["outcome"] == Outcome.no_port]
        at_s = (lacking["syn_ns"].astype(np.int64) - trace.start_ns) / 1e9
        ax.plot(at_s, np.full(len(at_s), ports), "x", color=_OUTCOMES[Outcome.refused][0],
                label="no port")  # fmt: skip
        ax.legend(loc="lower right")
        ax.set_xlim(0, max(trace.end_ns - trace.start_ns, 1) / 1e9)
        ax.set_ylim(0, 1.05 * ports)
    ax.set_xlabel("seconds")
    ax.set_ylabel("local ports taken")
    return ax


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError:
        raise PorttraceError(
            "matplotlib is not installed", "pip install 'porttrace[notebook]'"
        ) from None
    return pyplot.subplots(layout="constrained")[1]
