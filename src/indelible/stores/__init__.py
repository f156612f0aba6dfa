"""The engines that hold the log: SQLite and PostgreSQL."""
