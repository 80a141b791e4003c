"""Several runs of one request, made by several machines or people, become one run: `runs` says how."""
