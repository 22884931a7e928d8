"""Where do synthetic films come from? Drawn chests, laid out as the sources are."""
