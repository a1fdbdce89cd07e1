"""The protocol as an executable specification, and the engine's domain held against it."""
