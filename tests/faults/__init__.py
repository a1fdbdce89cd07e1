"""The whole engine in memory, where any single call may be the last one, unanswered, late or repeated."""
