"""Concept tables: what is written about the classes, and what is made of it."""
