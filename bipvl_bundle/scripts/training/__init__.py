"""What MONAI's trainer needs for a BiPVL-Seg."""
