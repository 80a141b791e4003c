"""A run's folder: written in whole, read back with its checksums, repaired by running again."""
