"""Sources: what a term compares of student and teacher. One module a table of rows, one class a row."""
