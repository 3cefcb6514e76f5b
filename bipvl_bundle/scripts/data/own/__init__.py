"""Data sets of one's own: from two folders to a datalist, an overlay and a concept table."""
