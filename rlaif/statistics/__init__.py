"""Intervals, running estimates, calibration and the logistic function."""
