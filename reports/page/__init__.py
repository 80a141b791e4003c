"""The page of a run: one HTML file that needs neither network nor server, made from the run's folder alone."""
