"""Sets of experiments on a cluster."""
