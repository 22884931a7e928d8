"""What do trained networks find? Predictions, thresholds, the two-stage rule, and the test set's result."""
