"""The log of a process as the settings say."""

from membridge.settings import Settings
from membridge.system import logging

log = logging.get_logger("membridge.settings")


def start_logging(settings: Settings) -> None:
    """Send this process's log lines where the settings say, secrets masked; log what is odd about the settings."""
    logging.setup(form=settings.node.log_format.value, level=settings.node.log_level.value, secrets=settings.secrets())
    for warning in settings.warnings:
        log.warning("a setting needs a look", detail=warning)
