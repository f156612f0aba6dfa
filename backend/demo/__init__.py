"""The demo: a server, a minute of traffic, and the guide's questions with a live token."""
