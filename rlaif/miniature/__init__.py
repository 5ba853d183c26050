"""A world small enough for a laptop, with known truth, and tiny models made on first use."""
