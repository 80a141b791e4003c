"""Sheets of token maps and masks."""
