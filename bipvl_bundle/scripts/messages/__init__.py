"""What a user is told, worded alike everywhere: names, sizes, tables, the faults of a description."""
