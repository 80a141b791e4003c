"""Score against cost: points, curves, frontiers, and the plots of them."""
