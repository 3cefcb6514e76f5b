"""Handlers and helpers that train a BiPVL-Seg with MONAI's engines."""
