"""Tables: of a run, of curves, of papers, on the console."""
