"""The verbs of the command line: parse, call, print. What they do is done in the wings below."""
