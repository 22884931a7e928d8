"""What learns? Networks, their weights, five folds as one model, and what makes them fast or small."""
