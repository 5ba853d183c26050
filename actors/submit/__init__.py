"""A run on another cluster, over the Ray Jobs API."""
