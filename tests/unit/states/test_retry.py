"""Delays between tries."""

import random

import pytest

from formicary.model.definition import BackoffPolicy, RetryPolicy
from formicary.states.retry import delay_before


def test_without_backoff_the_delay_is_fixed() -> None:
    policy = RetryPolicy(limit=3, delay_s=1.5)
    assert [delay_before(policy, n, random.Random(1)) for n in range(3)] == [1.5, 1.5, 1.5]


def test_backoff_grows_by_its_factor_up_to_its_maximum() -> None:
    policy = RetryPolicy(limit=5, backoff=BackoffPolicy(min_s=1, max_s=10, factor=3, jitter=0))
    assert [delay_before(policy, n, random.Random(1)) for n in range(4)] == [1, 3, 9, 10]


def test_jitter_stays_within_its_share_and_is_reproducible() -> None:
    policy = RetryPolicy(limit=5, backoff=BackoffPolicy(min_s=10, max_s=100, factor=1, jitter=0.5))
    delays = [delay_before(policy, 0, random.Random(seed)) for seed in range(200)]
    assert min(delays) >= 5
    assert max(delays) <= 15
    assert len(set(delays)) > 100
    assert delays[7] == delay_before(policy, 0, random.Random(7))


@pytest.mark.parametrize("tries_made", [2000, 10**6])
def test_a_huge_count_of_tries_ends_at_the_maximum(tries_made: int) -> None:
    policy = RetryPolicy(limit=1, backoff=BackoffPolicy(min_s=1, max_s=60, factor=2, jitter=0))
    assert delay_before(policy, tries_made, random.Random(1)) == 60
