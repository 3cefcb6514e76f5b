"""Description of a new data set: datalist, overlay and concept table from two folders."""
