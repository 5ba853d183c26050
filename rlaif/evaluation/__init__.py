"""What a run achieved: answer classes, label accuracy, calibration, Elo, and the report."""
