"""People judge a sample of the labels, blind, and the report says what the labels are worth."""
