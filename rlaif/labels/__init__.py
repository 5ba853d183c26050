"""How good labels are, what they cost, and how stored ones are aggregated again."""
