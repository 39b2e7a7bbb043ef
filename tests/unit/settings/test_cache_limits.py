"""The limits of caches, as people write them."""

import pytest

from formicary.cache_limits import cache_limits
from formicary.errors import InvalidInputError
from formicary.queen.caches import CacheLimits
from formicary.settings import load


def test_sizes_are_read_and_have_defaults() -> None:
    assert cache_limits(load({"HOME": "/"})) == CacheLimits(5_000_000_000, 50_000_000_000)
    environ = {"FORMICARY_CACHE_LIMIT": "1.5Gi", "FORMICARY_CACHE_TOTAL_LIMIT": "20M"}
    assert cache_limits(load(environ)) == CacheLimits(1_610_612_736, 20_000_000)


def test_a_wrong_size_names_its_setting() -> None:
    with pytest.raises(InvalidInputError, match=r"FORMICARY_CACHE_TOTAL_LIMIT: .much. is no size"):
        cache_limits(load({"FORMICARY_CACHE_TOTAL_LIMIT": "much"}))
