"""What learns: networks, their weights, and five folds as one model."""
