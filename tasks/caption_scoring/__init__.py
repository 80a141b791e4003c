"""Scores of captions: pycocoevalcap in a child process that is watched."""
