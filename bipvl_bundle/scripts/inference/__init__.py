"""Inference requests that ask for more than a label map."""
