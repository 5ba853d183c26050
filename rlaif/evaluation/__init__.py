"""What a run achieved: classes of its answers, accuracy and calibration of its labels, human audits, and the report."""
