"""How it learns: losses, schedules, the training loop and the stages."""
