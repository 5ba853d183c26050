"""What labels are worth and what they cost, and how they are aggregated again."""
