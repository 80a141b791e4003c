"""Tasks that judge a model by its features: no head is trained, and of some no label is known."""
