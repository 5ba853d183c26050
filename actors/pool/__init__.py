"""Elastic pools of inference engines: every row comes back exactly once, whatever dies."""
