"""The result of a measurement: targets, measured values, and whether every target was met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Finding = dict[str, Any]


def finding(
    name: str, measures: str, aim: Mapping[str, float], value: Mapping[str, float], *, at_least: bool = False, **more: Any
) -> Finding:
    """Return a finding as a JSON object.

    Args:
        name: the name of the measurement.
        measures: what is measured, as a phrase.
        aim: the targets.
        value: the measured values, by the keys of `aim`.
        at_least: the targets are lower bounds; otherwise upper bounds.
        more: further entries of the finding.
    """
    met = {key: value[key] >= aim[key] if at_least else value[key] <= aim[key] for key in aim}
    return {
        "name": name,
        "measures": measures,
        "aim": dict(aim),
        "value": {key: round(value[key], 3) for key in aim},
        "met": all(met.values()),
        "at_least": at_least,
        **more,
    }


def verdicts(found: Finding) -> str:
    """Return a line for each target: whether it was met, and the measured value."""
    sign = ">=" if found["at_least"] else "<="
    return "\n".join(
        f"  {'met   ' if _is_met(found, key) else 'MISSED'}  {key:46} {found['value'][key]:8.2f}   (aim {sign} {aim:g})"
        for key, aim in found["aim"].items()
    )


def table(rows: list[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """Format a table, with the first column aligned left and the others right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, *rows]
    )


def _is_met(found: Finding, key: str) -> bool:
    value, aim = found["value"][key], found["aim"][key]
    return bool(value >= aim if found["at_least"] else value <= aim)
