"""The command line: a client of the HTTP API, which is never shipped to Lambda and knows nothing of the server's code."""
