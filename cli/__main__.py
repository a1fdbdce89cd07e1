"""`python -m cli` runs the same program as `headrace`."""

from cli.main import main

main()
