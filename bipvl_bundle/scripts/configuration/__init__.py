"""Checks of bundle configurations, and what their errors look like on the screen."""
