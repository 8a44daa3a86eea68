"""The names of JetStream's headers that nats-py's core looks up, without nats-py's JetStream client."""

import importlib
from enum import StrEnum


class _Known(StrEnum):
    STATUS = "Status"
    DESCRIPTION = "Description"
    CONSUMER_STALLED = "Nats-Consumer-Stalled"


class _Headers:
    STATUS, DESCRIPTION, CONSUMER_STALLED = _Known

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module("nats.js.api").Header, name)


class Api:
    """Stands in for the module `nats.js.api`; what it lacks is looked up there."""

    Header = _Headers()

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module("nats.js.api"), name)
