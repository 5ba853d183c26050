"""The run directory: its journal, manifest, metrics, and tables."""
