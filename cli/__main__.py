"""`python -m cli`, the same as `headrace`."""

from cli.main import main

main()
