"""A blind audit: people judge a sample of the labels, and the report says how far they agree."""
