"""Step 5: the loops that sample, score, learn, and refresh the preference model at the same time."""
