"""What a measurement says: its aims, what came out, and whether every aim was met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Finding = dict[str, Any]


def finding(
    name: str, sentence: str, aim: Mapping[str, float], value: Mapping[str, float], *, at_least: bool = False, **more: Any
) -> Finding:
    """`aim` and `value` have the same keys; a value should be at most its aim, or at least, if `at_least`."""
    met = {key: value[key] >= aim[key] if at_least else value[key] <= aim[key] for key in aim}
    return {
        "name": name,
        "measures": sentence,
        "aim": dict(aim),
        "value": {key: round(value[key], 3) for key in aim},
        "met": all(met.values()),
        "at_least": at_least,
        **more,
    }


def verdicts(found: Finding) -> str:
    """A line for each aim."""
    sign = ">=" if found["at_least"] else "<="
    return "\n".join(
        f"  {'met   ' if _holds(found, key) else 'MISSED'}  {key:46} {found['value'][key]:8.2f}   (aim {sign} {aim:g})"
        for key, aim in found["aim"].items()
    )


def table(rows: list[tuple[str, ...]], heads: tuple[str, ...]) -> str:
    """Columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [heads, *rows]
    )


def _holds(found: Finding, key: str) -> bool:
    value, aim = found["value"][key], found["aim"][key]
    return bool(value >= aim if found["at_least"] else value <= aim)
