"""Checks of data that comes from files, requests and names."""
