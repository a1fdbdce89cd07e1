"""Tables of a terminal: ids, statuses and amounts are shown whole, other cells are cut, the least important columns left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from cli import output

MIN_WIDTH = 8  # of a column whose cells may be cut
_GAP = 2


class Listing:
    """A table without borders that fits the terminal."""

    def __init__(
        self, columns: Sequence[str], *, whole: Collection[str] = (), folded: Collection[str] = (), spare: Sequence[str] = ()
    ) -> None:
        """
        Args:
            whole: the columns whose cells are never cut, because half an id, a status or an amount is none.
            folded: the columns whose cells go on in the next line.
            spare: the columns that a narrow terminal does without, the least important one first.
        """
        self._columns, self._whole, self._folded, self._spare = list(columns), whole, folded, spare
        self._rows = list[tuple[Any, ...]]()

    def add_row(self, *cells: Any) -> None:
        """Add a row of texts, which are shown without control characters, or of `rich.text.Text`."""
        from rich.text import Text

        self._rows.append(tuple(cell if isinstance(cell, Text) else Text(output.clean(str(cell))) for cell in cells))

    def print(self) -> None:
        """Print the table to stdout, and to stderr which of its columns are left out."""
        from rich.table import Table

        console = output.stdout()
        full = [max([len(name), *(row[place].cell_len for row in self._rows)]) for place, name in enumerate(self._columns)]
        shown = self._fitting(full, console.width)
        widths = self._shared(shown, full, console.width)
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
        for place in shown:
            name = self._columns[place]
            wraps = name in self._folded or not widths
            table.add_column(name, width=widths.get(place), no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
        for row in self._rows:
            table.add_row(*(row[place] for place in shown))
        console.print(table)
        if left_out := [name for place, name in enumerate(self._columns) if place not in shown]:
            output.note(f"\nThe terminal is too narrow for: {', '.join(left_out)}.")

    def _fitting(self, full: Sequence[int], available: int) -> list[int]:
        """The places of the columns that are shown."""
        shown = list(range(len(self._columns)))
        for name in self._spare:
            if self._needed(shown, full) <= available:
                break
            shown.remove(self._columns.index(name))
        return shown

    def _shared(self, shown: Sequence[int], full: Sequence[int], available: int) -> dict[int, int]:
        """The width of each column; nothing if the terminal is too narrow even so, and every cell has to be folded."""
        if self._needed(shown, full) > available:
            return {}
        widths = {place: full[place] for place in shown if self._columns[place] in self._whole}
        left = available - _GAP * len(shown) - sum(widths.values())
        others = sorted((place for place in shown if place not in widths), key=lambda place: full[place])
        for count, place in enumerate(others):
            widths[place] = min(full[place], left // (len(others) - count))
            left -= widths[place]
        return widths

    def _needed(self, shown: Sequence[int], full: Sequence[int]) -> int:
        """The width without which one of these columns is of no use."""
        whole = self._whole
        return sum(full[place] if self._columns[place] in whole else min(full[place], MIN_WIDTH) for place in shown) + _GAP * len(shown)
