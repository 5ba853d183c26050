"""The constitution's linter: rules of structure, and rules of meaning that a model judges."""
