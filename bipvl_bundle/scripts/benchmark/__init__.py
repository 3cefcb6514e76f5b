"""Benchmark of BiPVL-Seg against its plain backbone: time, memory and operations."""
