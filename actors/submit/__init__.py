"""A run on a cluster elsewhere, over the Ray Jobs API."""
