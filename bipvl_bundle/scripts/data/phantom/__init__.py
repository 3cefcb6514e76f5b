"""The embedded data set: abdominal CT volumes drawn from shapes."""
