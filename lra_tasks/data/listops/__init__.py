"""ListOps: the value of a nested list of operations on digits."""
