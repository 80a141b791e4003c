"""Networks that pictures are scored by, from files that the user puts in place: nothing is downloaded."""
