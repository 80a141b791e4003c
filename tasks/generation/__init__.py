"""Pictures that a model draws, scored by a judge and against the unreduced model's."""
