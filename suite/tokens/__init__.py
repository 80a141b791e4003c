"""The algebra of tokens: their state, what was done to them, groups and matchings. Knows no model and no method."""
