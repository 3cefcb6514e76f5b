"""Sets of experiments: described, run, resumed and compared."""
