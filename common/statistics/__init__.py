"""How good is it, and how sure is that? Metrics, strata, intervals, comparisons, human readers."""
