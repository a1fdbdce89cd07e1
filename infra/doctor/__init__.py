"""`make doctor`: check a stage and the account it is in, and say what to do."""
