"""The verbs: each command parses, asks the API, and shows the answer."""
