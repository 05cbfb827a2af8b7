"""One algorithm per file, each read top to bottom."""
