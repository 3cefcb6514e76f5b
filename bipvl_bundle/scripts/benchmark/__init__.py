"""What the words cost: BiPVL-Seg beside its plain backbone, in time, memory and operations."""
