"""The functions that benchmark jobs call."""


async def nothing() -> None:
    """Does nothing, asynchronously."""
