"""The API server: ``uvicorn backend.server.main:app``."""
