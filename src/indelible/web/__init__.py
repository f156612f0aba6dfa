"""The audit log over HTTP, for hosts on FastAPI. Needs ``pip install 'indelible[web]'``."""

from indelible.errors import ConfigurationError

try:
    import fastapi as fastapi
except ImportError as error:
    raise ConfigurationError("the query API needs FastAPI", hint="pip install 'indelible[web]'") from error
