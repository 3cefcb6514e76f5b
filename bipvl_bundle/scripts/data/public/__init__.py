"""Public data sets in their official folder layouts."""
