"""The commands. Each parses its arguments, calls the API and prints the answer."""
