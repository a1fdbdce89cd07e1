"""Wrap streamed text into lines of a terminal."""

from __future__ import annotations


class LineWrapper:
    """Split text that arrives in pieces into lines of at most `width` cells.

    A line is returned as soon as no later text can change it. The rest is `unfinished`.
    """

    def __init__(self, width: int) -> None:
        self._width = max(10, width)
        self.unfinished = ""

    def feed(self, text: str) -> list[str]:
        """Add text and return the lines that are complete now."""
        self.unfinished += text
        lines = []
        while (cut := self._next_cut()) is not None:
            lines.append(self.unfinished[:cut].removesuffix("\n"))
            self.unfinished = self.unfinished[cut:]
        return lines

    def flush(self) -> list[str]:
        """Return the unfinished line, if there is one."""
        line, self.unfinished = self.unfinished, ""
        return [line] if line else []

    def _next_cut(self) -> int | None:
        """The end of the first line: after its newline, else after the last space that fits, else
        where the width ends.
        """
        line, newline, _ = self.unfinished.partition("\n")
        fitting = self._fitting_chars(line)
        if fitting == len(line):
            return len(line) + 1 if newline else None
        return line.rfind(" ", 0, fitting) + 1 or fitting

    def _fitting_chars(self, line: str) -> int:
        """How many characters of `line` fit. At least one, otherwise `feed` would never end."""
        from rich.cells import cell_len

        if cell_len(line) <= self._width:
            return len(line)
        cells = 0
        for index, character in enumerate(line):
            cells += cell_len(character)
            if cells > self._width:
                return max(1, index)
        return len(line)
