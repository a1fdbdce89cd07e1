"""The whole system in memory, with faults at single calls: deaths, freezes and lost responses."""
