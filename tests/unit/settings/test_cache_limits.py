"""The limits of caches, as people write them."""

from formicary.cache_limits import cache_limits
from formicary.queen.caches import CacheLimits
from formicary.settings import load


def test_sizes_are_read_and_have_defaults() -> None:
    assert cache_limits(load({"HOME": "/"})) == CacheLimits(5_000_000_000, 50_000_000_000)
    environ = {"FORMICARY_CACHE_LIMIT": "1.5Gi", "FORMICARY_CACHE_TOTAL_LIMIT": "20M"}
    assert cache_limits(load(environ)) == CacheLimits(1_610_612_736, 20_000_000)
