"""One module per area of the API, each with a ``router``."""
