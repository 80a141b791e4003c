"""Models by name: how one is built, where its weights come from, how their files are read."""
