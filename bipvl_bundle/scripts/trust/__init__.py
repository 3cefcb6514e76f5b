"""What may be believed of a file, a request or a name."""
