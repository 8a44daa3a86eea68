"""The lines of the doctor and of `membridge validate`, each with its finding."""

from schemas.node import Check, Finding


def ok(name: str, detail: str) -> Check:
    """Return the line of a check that found nothing wrong."""
    return Check(name=name, finding=Finding.OK, detail=detail)


def warn(name: str, detail: str, remedy: str) -> Check:
    """Return the line of a check that found what works and should not stay so."""
    return Check(name=name, finding=Finding.WARN, detail=detail, remedy=remedy)


def fail(name: str, detail: str, remedy: str) -> Check:
    """Return the line of a check that found what does not work."""
    return Check(name=name, finding=Finding.FAIL, detail=detail, remedy=remedy)


def skipped(name: str, detail: str) -> Check:
    """Return the line of a check that could not be made."""
    return Check(name=name, finding=Finding.SKIPPED, detail=detail)
