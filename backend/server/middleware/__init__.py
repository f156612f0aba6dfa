"""ASGI middleware bound to this application."""
