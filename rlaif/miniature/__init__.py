"""A world small enough for a laptop, with known truth: a lexicon, its texts, and tiny models trained on them."""
