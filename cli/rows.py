"""Text that arrives in pieces, as rows of a terminal."""

from __future__ import annotations


class Rows:
    """Gives out rows of at most `width` cells as soon as nothing can join them; the rest is `unfinished`."""

    def __init__(self, width: int) -> None:
        self._width = max(10, width)
        self.unfinished = ""

    def feed(self, text: str) -> list[str]:
        self.unfinished += text
        rows = []
        while (cut := self._next_cut()) is not None:
            rows.append(self.unfinished[:cut].removesuffix("\n"))
            self.unfinished = self.unfinished[cut:]
        return rows

    def flush(self) -> list[str]:
        row, self.unfinished = self.unfinished, ""
        return [row] if row else []

    def _next_cut(self) -> int | None:
        """Where the first row ends: behind its newline, or behind the last space that fits, or where nothing more fits."""
        line, newline, _ = self.unfinished.partition("\n")
        fitting = self._fitting(line)
        if fitting == len(line):
            return len(line) + 1 if newline else None
        return line.rfind(" ", 0, fitting) + 1 or fitting

    def _fitting(self, line: str) -> int:
        """How many characters of `line` fit; at least one, or nothing would ever move."""
        from rich.cells import cell_len

        if cell_len(line) <= self._width:
            return len(line)
        cells = 0
        for index, character in enumerate(line):
            cells += cell_len(character)
            if cells > self._width:
                return max(1, index)
        return len(line)
