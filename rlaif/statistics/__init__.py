"""Intervals and calibration."""
