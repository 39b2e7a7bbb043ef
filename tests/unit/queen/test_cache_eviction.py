"""Which caches go: the outdated, then the least recently used beyond the limits."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from formicary.artifacts.caches import CacheEntry, CacheScope, milliseconds
from formicary.queen.caches import GRACE_S, KEPT, CacheLimits, is_over, outdated, too_much

NOW = datetime(2030, 1, 1, tzinfo=UTC)
A, B = CacheScope("default", "a"), CacheScope("default", "b")
ROOMY = 10**9


def entry(
    key: str, age_s: float, size_bytes: int = 10, scope: CacheScope = A, expires_s: float | None = None
) -> CacheEntry:
    created = NOW - timedelta(seconds=age_s)
    expires = 0 if expires_s is None else milliseconds(NOW + timedelta(seconds=expires_s))
    return CacheEntry(scope, key, milliseconds(created), expires, size_bytes, "0" * 64)


def by_age(entry: CacheEntry) -> int:
    return entry.created_ms


def test_what_expired_and_what_was_superseded_a_while_ago_is_outdated() -> None:
    old, replaced, newest = entry("k", GRACE_S + 30), entry("k", GRACE_S + 20), entry("k", GRACE_S + 10)
    other, expired, lasting = entry("other", 99_999), entry("e", 50, expires_s=-1), entry("l", 50, expires_s=1)
    assert set(outdated([old, other, newest, expired, lasting, replaced], NOW)) == {old, replaced, expired}


def test_a_superseded_archive_is_left_to_who_may_be_fetching_it() -> None:
    assert outdated([entry("k", 5000), entry("k", GRACE_S - 1)], NOW) == []


def test_an_archive_beside_an_expired_newer_one_stays() -> None:
    lasting, expired = entry("k", 5000), entry("k", 4000, expires_s=-1)
    assert outdated([lasting, expired], NOW) == [expired]


def test_each_job_type_has_its_limit() -> None:
    limits = CacheLimits(job_type_bytes=25, total_bytes=ROOMY)
    first, second, third = entry("1", 30), entry("2", 20), entry("3", 10)
    others = [entry("1", 90, scope=B), entry("2", 80, scope=B)]
    assert not is_over([first, second, *others], limits)
    assert is_over([first, second, third, *others], limits)
    assert too_much([first, second, third, *others], limits, by_age) == [first]


def test_all_together_have_a_limit_and_the_least_recently_used_of_all_goes() -> None:
    limits = CacheLimits(job_type_bytes=100, total_bytes=30)
    entries = [entry("1", 40), entry("2", 30, scope=B), entry("3", 20), entry("4", 10, scope=B)]
    assert too_much(entries, limits, by_age) == entries[:1]


def test_a_cache_that_was_restored_lately_outlives_a_younger_one() -> None:
    limits = CacheLimits(job_type_bytes=10, total_bytes=ROOMY)
    old, young = entry("old", 500), entry("young", 50)
    used = {old: milliseconds(NOW), young: young.created_ms}
    assert too_much([old, young], limits, lambda entry: used[entry]) == [young]


def test_of_small_ones_a_tenth_more_goes_and_a_large_one_stays() -> None:
    limits = CacheLimits(job_type_bytes=100, total_bytes=ROOMY)
    small = [entry(str(number), 1000 - number, size_bytes=3) for number in range(40)]
    left = set(small).difference(too_much(small, limits, by_age))
    assert sum(each.size_bytes for each in left) == 90
    large = [entry(str(number), 1000 - number, size_bytes=48) for number in range(3)]
    assert too_much(large, limits, by_age) == large[:1]


ENTRIES = st.builds(
    entry,
    st.sampled_from("xyz"),
    st.integers(0, 10_000).map(float),
    st.integers(1, 50),
    st.sampled_from([A, B]),
)


@given(st.sets(ENTRIES, max_size=30), st.integers(0, 200), st.integers(0, 300))
def test_what_is_left_is_within_the_limits_and_nothing_goes_needlessly(
    entries: set[CacheEntry], job_type_bytes: int, total_bytes: int
) -> None:
    limits = CacheLimits(job_type_bytes, total_bytes)
    gone = too_much(entries, limits, by_age)
    left = entries.difference(gone)
    assert not is_over(left, limits)
    assert bool(gone) == is_over(entries, limits)
    if gone:
        last = max(gone, key=lambda entry: (by_age(entry), entry))
        beside = sum(entry.size_bytes for entry in left if entry.scope == last.scope)
        everything = sum(entry.size_bytes for entry in left)
        is_well_used = beside >= job_type_bytes * KEPT or everything >= total_bytes * KEPT
        assert is_over({*left, last}, limits) or is_well_used
