"""Read-only views of a data set's files, one a way of storing them."""
