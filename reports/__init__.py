"""Reports from what a run stored: nothing here needs a model."""
