"""Positions of voxels in millimetres."""
