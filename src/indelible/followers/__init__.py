"""What happens to the log's rows once they are stored and sealed, beside the service and never in its way.

A follower is a durable cursor over ``seq`` and a step that is repeatable; ``ports.Follower`` has the promises. The
``publisher`` signs checkpoints and brings them to places outside the database.
"""
