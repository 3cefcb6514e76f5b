"""Sets of experiments: description, runs, resuming, comparison."""
