"""What settings say about the size of caches."""

from formicary.errors import InvalidInputError
from formicary.model.quantities import parse_size
from formicary.queen.caches import CacheLimits
from formicary.settings import Settings


def cache_limits(settings: Settings) -> CacheLimits:
    """Returns the limits.

    Raises:
        InvalidInputError: names the setting that is wrong.
    """
    return CacheLimits(
        _size("FORMICARY_CACHE_LIMIT", settings.cache_limit),
        _size("FORMICARY_CACHE_TOTAL_LIMIT", settings.cache_total_limit),
    )


def _size(name: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise InvalidInputError(f"{name}: {error}") from error
