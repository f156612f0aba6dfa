"""The log's own tables: made, upgraded, adopted, granted. An Alembic history with a version table of its own.

``upgrade(op)`` and ``downgrade(op)`` are for the host's revisions, ``autogenerate_options()`` for its ``env.py``;
the others take an Engine and are what the command line runs.
"""

from indelible.migrations.adoption import adopt
from indelible.migrations.autogenerate import autogenerate_options
from indelible.migrations.grants import roles
from indelible.migrations.steps import current, downgrade, upgrade, upgrade_engine

__all__ = ["adopt", "autogenerate_options", "current", "downgrade", "roles", "upgrade", "upgrade_engine"]
