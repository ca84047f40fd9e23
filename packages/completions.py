"""Completion for bash, zsh and fish, made by click: each asks porttrace what could come next.

    python -m packages.completions FOLDER

The files have the names that the shells look for: porttrace, _porttrace, porttrace.fish.
"""

import sys
from pathlib import Path

from click.shell_completion import get_completion_class

from porttrace.cli import COMPLETE, porttrace

FILES = {"bash": "porttrace", "zsh": "_porttrace", "fish": "porttrace.fish"}


def script(shell: str) -> str:
    """Return the script for `bash`, `zsh` or `fish`."""
    kind = get_completion_class(shell)
    assert kind, shell
    maker = kind(porttrace, {}, "porttrace", COMPLETE)
    # Not source(): for bash that asks the bash of the machine it is made on for its version.
    text = maker.source_template % maker.source_vars()
    return _called_each_time(text) if shell == "zsh" else text


# Of what zsh finds by itself ("autoload") click's script completes at the first Tab only: at the
# second, zsh_eval_context says no more that it is loaded, and nothing is completed. Ours is
# never sourced, so that question need not be asked.
def _called_each_time(text: str) -> str:
    body, found, _ = text.partition("\nif [[ $zsh_eval_context[-1] == loadautofunc ]]")
    assert found, "click's script for zsh has another shape"
    return f'{body}\n_porttrace_completion "$@"\n'


def write(folder: Path) -> list[Path]:
    """Write the three scripts to a folder, which is made; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for shell, name in FILES.items():
        files.append(folder / name)
        files[-1].write_text(script(shell), encoding="ascii")
    return files


if __name__ == "__main__":
    write(Path(sys.argv[1]))
