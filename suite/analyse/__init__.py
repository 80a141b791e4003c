"""What the DTEM paper (Lee and Hong, NeurIPS 2024) analyses of its method, made again on any model and data."""
