"""One file per method that can be trained; a file in this folder is listed by being there."""
