"""One C text from the roof file and its local headers.

bcc rewrites map accesses in the main file only, so a handler in an included
header would call through a null pointer. Local includes are therefore joined
here, each once; #line keeps the compiler's messages pointing at the real file.
"""

import re
from pathlib import Path

from porttrace.tracer.errors import PorttraceError

_INCLUDE = re.compile(r'^#include "([\w./]+)"$')


def join_source(path: Path, _seen: set[Path] | None = None) -> str:
    """Return the text of `path` with every `#include "..."` put in its place, once.

    Raises PorttraceError when a file cannot be read.
    """
    seen = set() if _seen is None else _seen
    seen.add(path)
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise PorttraceError(
            f"cannot read {path}: {error.strerror}", "reinstall porttrace"
        ) from None
    out = [f'#line 1 "{path.name}"']
    for number, line in enumerate(lines, 1):
        match = _INCLUDE.match(line)
        if match is None:
            out.append("" if line == "#pragma once" else line)
            continue
        header = path.parent / match[1]
        if header not in seen:
            out.append(join_source(header, seen))
        out.append(f'#line {number + 1} "{path.name}"')
    return "\n".join(out)
