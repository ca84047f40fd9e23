"""porttrace doctor: what this host lacks, what that costs, and what mends it."""

import dataclasses
import json
import textwrap

import click

from porttrace.tracer.checks import Check, checks, verdict

_VERDICTS = {
    0: "Live tracing can work here.",
    3: "This user may not trace; as root, doctor also sees the rest.",
    4: "Live tracing cannot work here until that is mended.",
}
_INDENT = " " * 25
_WIDTH = 79


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Tell what this host lacks and the command that mends it.

    Changes nothing. Exits with 0 when live tracing can work, 3 when only the rights
    of this user are in the way, 4 when the host lacks something.

    \b
    Example:
        sudo porttrace doctor
    """
    found = checks()
    code = verdict(found)
    for check in found:
        click.echo(json_line(check) if as_json else table_row(check))
    if not as_json:
        click.echo(f"\n{_VERDICTS[code]}")
    ctx.exit(code)


def json_line(check: Check) -> str:
    """Return a check as one line of JSON; `ok` is null where this user may not look."""
    return json.dumps({"type": "check", **dataclasses.asdict(check)})


def table_row(check: Check) -> str:
    """Return a check in lines of less than 80 columns; only a fault has a cost and a remedy."""
    status = {True: "ok", False: check.word, None: "unknown"}[check.ok]
    lines = _wrapped(f"{status:<8} {check.name:<15} ", check.detail)
    if check.ok is False:
        lines += _wrapped(f"{_INDENT}costs: ", check.cost)
        lines += _wrapped(f"{_INDENT}mend:  ", check.remedy)
    return "\n".join(lines)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
