"""Training: a scorer that is fed with history, how good it is, and the search for better parameters."""
