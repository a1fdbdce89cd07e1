"""The protocol as an executable specification, and tests of the domain code against it."""
