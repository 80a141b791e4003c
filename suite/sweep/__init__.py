"""A sweep: `spec` (what is asked) -> `methods` and `plan` -> `engine` and `evaluate`; `api` runs one from Python."""
