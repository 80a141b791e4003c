"""COCO captioning: its annotation files, and the images that they name."""
