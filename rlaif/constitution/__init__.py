"""By which principles: the constitution, its public JSON shapes, and what changed between two of them."""
