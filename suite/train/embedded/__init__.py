"""How the weights that come with the suite were made: `make weights`."""
