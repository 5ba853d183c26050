"""Readers of user data: prompts, preference pairs, voted answers."""
