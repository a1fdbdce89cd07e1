"""Print a security analysis as a table."""

from __future__ import annotations

from typing import Any

from cli import output

SEVERITY_STYLES = {
    "critical": "bold white on red",
    "high": "bold red",
    "medium": "yellow",
    "low": "cyan",
    "informational": "dim",
    "none": "green",
}


def print_findings(report: dict[str, Any]) -> None:
    """Print the findings (the report has the worst first), then its overall risk and summary."""
    from rich.table import Table

    console = output.stdout()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("severity", no_wrap=True)
    table.add_column("finding", overflow="fold", ratio=3)
    table.add_column("where", overflow="fold", ratio=2)
    for finding in report.get("findings") or []:
        title, location = (output.clean(str(finding.get(name) or "")) for name in ("title", "location"))
        table.add_row(_severity(str(finding.get("severity") or "")), title, location)
    console.print(table)
    console.print("\noverall risk  ", _severity(str(report.get("overall_risk") or "unknown")), sep="")
    if summary := report.get("summary"):
        console.print(output.clean(str(summary)), markup=False)


def _severity(name: str) -> Any:
    from rich.text import Text

    return Text(name, style=SEVERITY_STYLES.get(name, ""))
