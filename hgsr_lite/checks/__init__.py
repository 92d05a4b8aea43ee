"""One check for each exercise of the series; see `engine` for how they work."""
