"""How are the results shown? The tables of the terminal, metrics.csv, and the page with its plots."""
