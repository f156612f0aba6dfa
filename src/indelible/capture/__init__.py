"""Where events come from by themselves: the ASGI middleware."""
