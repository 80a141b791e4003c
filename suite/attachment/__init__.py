"""A reducer on a model: attached in place, taken off again; weights that come with it."""
