"""Training what methods learn: one loop, a recipe a method, an objective a kind of task."""
