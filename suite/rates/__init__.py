"""Rates: how one is written, and what it means block by block."""
