"""The formulas, as pure functions: losses, advantages, experience, preference scores."""
