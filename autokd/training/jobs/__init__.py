"""Jobs: the two kinds of training that a search asks for, and what both have in common."""
