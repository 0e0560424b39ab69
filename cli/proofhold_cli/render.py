"""How verdicts look to people: what was shown and on whose word, what was not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from proofhold.core import Accepted, Assurance, Inconclusive, Property, Rejected, Verdict
from proofhold_cli.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proofhold.core import Finding, Need, Reason


STYLES = {Accepted: "bold green", Rejected: "bold red", Inconclusive: "bold yellow"}

WORDS = {
    Assurance.PROVED: "proved (zero-knowledge proof)",
    Assurance.ATTESTED: "attested (trusted hardware)",
    Assurance.REEXECUTED: "re-executed by the verifier",
    Assurance.NOT_DRAWN: "not checked: the draw passed it over",
}

MEANINGS = {
    Property.MODEL: "the named model made the output",
    Property.INPUT: "from the buyer's input",
    Property.OUTPUT: "the claimed output is what it gave",
    Property.FRESH: "made for this job and no other",
    Property.PROVIDER: "made by the provider that is paid",
}


def escape(text: str) -> str:
    """Show a stranger's text as it is: neither markup nor control characters are obeyed."""
    return escape_markup(one_line(text))


def make_console(*, stderr: bool = False) -> Console:
    """Make a console; colours go to terminals only, and nobody's text is read as markup."""
    return Console(stderr=stderr, highlight=False, emoji=False)


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print a verdict whole."""
    name = type(verdict).__name__
    console.print(f"[{STYLES[type(verdict)]}]{name.upper()}[/]  under policy {verdict.policy[:16]}…")
    if verdict.statement is not None:
        console.print(f"job {verdict.statement.job}, capture {verdict.statement.seq}")
    console.print(properties_table(verdict))
    print_dangers(console, verdict.findings)
    print_reasons(console, verdict.reasons)
    if isinstance(verdict, Inconclusive):
        print_needs(console, verdict.needs)


def properties_table(verdict: Verdict) -> Table:
    """Tabulate every property: shown and on whose word, or not shown."""
    table = Table("property", "what it says", "on whose word", box=None, pad_edge=False)
    shown = verdict.shown
    for prop in Property:
        words = ", ".join(WORDS[word] for word in shown[prop]) if prop in shown else "[dim]not shown[/]"
        table.add_row(prop.value, MEANINGS[prop], words)
    return table


def print_dangers(console: Console, findings: Sequence[Finding]) -> None:
    """Print in red whatever is unsafe about the findings."""
    for danger in sorted({danger for finding in findings for danger in finding.dangers}):
        console.print(f"[bold red]UNSAFE[/]  {escape(danger)}: not worth real money")


def print_reasons(console: Console, reasons: Sequence[Reason]) -> None:
    """Print reasons: code, whose fault, message, got and expected."""
    for reason in reasons:
        measured = ", measured" if reason.measured else ""
        console.print(f"[bold]{reason.code}[/]  (fault: {reason.fault}{measured})", soft_wrap=True)
        console.print(f"  {escape(reason.message)}", soft_wrap=True)
        if reason.got or reason.expected:
            got, expected = escape(reason.got), escape(reason.expected)
            console.print(f"  got {got or 'nothing'}, expected {expected}", soft_wrap=True)


def print_needs(console: Console, needs: Sequence[Need]) -> None:
    """Print what must be handed in."""
    for need in needs:
        console.print(f"needs {need.kind}{f' {need.subject}' if need.subject else ''}", soft_wrap=True)
