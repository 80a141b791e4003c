"""Speeds on GPUs that are not here, and how well those that papers printed come out."""
