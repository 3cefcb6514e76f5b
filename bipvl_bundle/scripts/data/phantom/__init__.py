"""The embedded data set: synthetic abdominal CT volumes."""
