"""The log of a process from the settings."""

from membridge.settings import Settings
from membridge.system import logging

log = logging.get_logger("membridge.settings")


def start_logging(settings: Settings) -> None:
    """Set up this process's log from the settings, with secrets masked; log the settings' warnings."""
    logging.setup(form=settings.node.log_format.value, level=settings.node.log_level.value, secrets=settings.secrets())
    for warning in settings.warnings:
        log.warning("a setting needs a look", detail=warning)
