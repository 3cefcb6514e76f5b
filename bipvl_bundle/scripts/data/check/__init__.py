"""Check of a data set before training."""
