"""Embedded scenes, drawn by a seeded generator: to be classified, captioned and segmented."""
