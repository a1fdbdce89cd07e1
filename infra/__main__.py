"""The entry of `python -m infra`. It imports nothing heavy, so that even an early Ctrl-C ends it in good order."""

from __future__ import annotations

import sys

from cli.error_handling import leave
from cli.errors import Exit


def main() -> None:
    """Run a command of the Makefile."""
    try:
        from infra.commands import run

        run()
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    finally:
        leave()


if __name__ == "__main__":
    main()
