"""Tasks that live exactly as long as an `async with` body."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class _BodyEnded(Exception):  # noqa: N818 - not an error: it only makes the group cancel its tasks
    pass


@asynccontextmanager
async def background() -> AsyncGenerator[asyncio.TaskGroup]:
    """Yield a group whose tasks are cancelled when the body ends.

    The body's exception, or the first failure of a task, comes out as itself: that it travelled through a group is
    nobody's concern outside.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
            raise _BodyEnded
    except BaseExceptionGroup as failures:
        failed = failures.split(_BodyEnded)[1]
        if failed is not None:
            raise _first(failed) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first  # pyright: ignore[reportUnknownArgumentType]
