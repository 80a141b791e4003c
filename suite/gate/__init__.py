"""Is this method worse than that one? Paired comparisons of cells, and a verdict at equal cost."""
