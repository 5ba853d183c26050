"""Files as they lie: which ones a source means, how they are packed and encoded, and the rows of each format."""
