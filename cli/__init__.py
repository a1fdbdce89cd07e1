"""The command line: a client of the HTTP API.

It is never shipped to Lambda and imports none of the server's code.
"""
