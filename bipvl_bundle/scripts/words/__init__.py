"""Concept tables: what is written about the classes."""
