"""Inputs as they come from elsewhere, small ones, made by script: a module a kind, with its tests beside it."""
