"""One runnable file per question; results with machine and versions in ``benchmarks/results``."""
