"""Imports run one way: down the floors below, never up and never in a circle.

Imports inside functions count too: they make start-up fast, not the order right.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
FOLDERS = ("tracer", "analysis", "lab", "cli")

# Within a folder a module imports from its own floor or from those before it.
# A module that is not named stands with the last floor in tracer (device and
# recording) and with attempts in analysis; a package's __init__ stands on top.
TRACER_FLOORS = (
    ("capabilities", "errors", "layout", "facts", "words"),
    ("event", "beside", "input", "output"),
    ("columns", "frames", "parts"),
    ("tracefile",),
)
ANALYSIS_FLOORS = (
    ("model",),
    ("names",),
    ("attempts", "concurrency", "holds", "ladder", "throttle"),
    ("findings",),
    ("whatif",),
    ("recording", "exported"),
    ("windows",),
    ("fleet",),
    ("render", "export", "show", "plot", "metrics"),
)
TOP = 9

# What a folder may import of the others: whole folders, or single modules.
ALLOWED = {
    "tracer": ("porttrace.tracer",),
    "analysis": (
        "porttrace.analysis",
        # what a trace is made of; never what reads the kernel
        "porttrace.tracer.beside",
        "porttrace.tracer.errors",
        "porttrace.tracer.event",
        "porttrace.tracer.facts",
        "porttrace.tracer.tracefile",
        "porttrace.tracer.words",
    ),
    "lab": ("porttrace.lab", "porttrace.tracer"),
    "cli": ("porttrace",),
}

# The modules that may import it: one for the kernel programs, one for rtnetlink.
ONLY_IN = {
    "bcc": {"porttrace.tracer.probe"},
    "pyroute2": {"porttrace.tracer.links"},
    "prometheus_client": {"porttrace.cli.exporter"},
}
SLOW_AT_START = ("numpy", "pandas", "pyarrow", "pyroute2", "bcc")


def module_of(path: Path) -> str:
    parts = ("porttrace", *path.relative_to(CHECKOUT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_of(path): path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*.py")}


def imports_of(module: str) -> set[str]:
    """Return the full names that a module imports, submodules told from names in them."""
    tree = ast.parse(PATHS[module].read_text())
    found = {name for node in ast.walk(tree) for name in names_in(node, module)}
    return found - {module}


def names_in(node: ast.AST, module: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = base_of(node, module)
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            yield inner if inner in PATHS else base


def base_of(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    is_package = PATHS[module].name == "__init__.py"
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


GRAPH = {module: imports_of(module) for module in PATHS}
EDGES = [
    (module, name)
    for module, names in sorted(GRAPH.items())
    for name in sorted(names)
    if name.split(".")[0] == "porttrace"
]


def floor_of(module: str) -> int:
    _, folder, *rest = module.split(".")
    floors = {"tracer": TRACER_FLOORS, "analysis": ANALYSIS_FLOORS}[folder]
    if not rest:
        return TOP
    for floor, names in enumerate(floors):
        if rest[0] in names:
            return floor
    return {"tracer": len(TRACER_FLOORS), "analysis": 2}[folder]


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_there_is_something_to_look_at() -> None:
    assert {"porttrace.tracer.errors", "porttrace.tracer.event"} <= set(PATHS)
    assert ("porttrace.tracer.event", "porttrace.tracer.errors") in EDGES


def test_folders_import_only_what_they_may() -> None:
    wrong = [edge for edge in EDGES if not within(edge[1], ALLOWED[edge[0].split(".")[1]])]
    assert not wrong


@pytest.mark.parametrize("folder", ["tracer", "analysis"])
def test_no_module_imports_from_a_higher_floor(folder: str) -> None:
    wrong = [
        (module, name)
        for module, name in EDGES
        if within(module, (f"porttrace.{folder}",))
        and within(name, (f"porttrace.{folder}",))
        and floor_of(name) > floor_of(module)
    ]
    assert not wrong


def test_no_imports_in_a_circle() -> None:
    sorter = TopologicalSorter(
        {module: {name for name in names if name in PATHS} for module, names in GRAPH.items()}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])), pytrace=False)


@pytest.mark.parametrize("foreign", ONLY_IN)
def test_few_modules_import_it(foreign: str) -> None:
    importers = {module for module, names in GRAPH.items() if any_of(foreign, names)}
    assert importers <= ONLY_IN[foreign]


def test_tracer_does_without_pandas() -> None:
    """Recording starts fast and leaves the traced host's memory alone."""
    wrong = [
        module
        for module, names in GRAPH.items()
        if within(module, ("porttrace.tracer",)) and any_of("pandas", names)
    ]
    assert not wrong


def any_of(foreign: str, names: set[str]) -> bool:
    return any(within(name, (foreign,)) for name in names)


def test_nothing_slow_is_imported_at_start() -> None:
    if "porttrace.cli" not in PATHS:
        pytest.skip("there is no command line yet")
    code = "import sys; from porttrace.cli import main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(SLOW_AT_START) & set(done.stdout.split())


def test_every_folder_is_installed() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"]) - {"porttrace.bpf"}
    folders = {path.parent for path in PATHS.values()}
    assert {".".join(("porttrace", *f.relative_to(CHECKOUT).parts)) for f in folders} == listed
