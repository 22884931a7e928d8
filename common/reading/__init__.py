"""The reading room: people look at films in a browser, and readers call them; on this machine only."""
