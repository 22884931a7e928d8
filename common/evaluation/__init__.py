"""How good it is: prediction, thresholds, the two-stage rule and the statistics."""
