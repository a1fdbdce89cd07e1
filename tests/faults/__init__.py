"""The whole system in memory, with a fault at any single call: a death, a freeze, a lost, late or repeated response."""
