"""Chores of the repository: run them through `make`."""
