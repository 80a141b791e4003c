"""What the unreduced model is called where reducers are: in requests, in stored cells, and in tables."""

BASELINE = "none"
