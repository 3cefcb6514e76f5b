"""Texts for users: names, sizes, tables."""
