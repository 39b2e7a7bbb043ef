"""What settings say about the size of caches."""

from formicary.model.quantities import parse_size
from formicary.queen.caches import CacheLimits
from formicary.settings import Settings


def cache_limits(settings: Settings) -> CacheLimits:
    """Returns the limits, in bytes."""
    return CacheLimits(parse_size(settings.cache_limit), parse_size(settings.cache_total_limit))
