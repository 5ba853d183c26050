"""One runnable file for each question; results, with machine and versions, are in ``benchmarks/results``."""
