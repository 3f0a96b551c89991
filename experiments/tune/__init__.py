"""A search for the settings that keep a user's limits on a user's data, judged on training images alone."""
