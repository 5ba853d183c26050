"""A world small enough for a laptop, with known truth, and tiny models that are trained on first use."""
