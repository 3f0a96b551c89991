"""Many runs as one: a grid of rows and seeds, run side by side, gathered in records, laid out in tables."""
