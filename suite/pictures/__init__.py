"""Pictures of a run: token maps, masks, and all that a report shows beside numbers."""
