"""Where the voxels of a volume lie, in millimetres."""
