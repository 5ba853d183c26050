"""Readers of the files that users bring: prompts, preference pairs, voted answers, pairs to be labelled."""
