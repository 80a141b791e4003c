"""Who does the work of a run: this process, or many."""
