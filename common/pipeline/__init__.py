"""All stages as one plan: what it will cost, what is done, and running what is not (`run.sh`)."""
