"""ImageNet-1k classification: the folders and archives that it comes in, and its labels."""
