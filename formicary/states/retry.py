"""How long to wait before another try."""

import random

from formicary.model.definition import BackoffPolicy, RetryPolicy


def delay_before(policy: RetryPolicy, tries_made: int, rng: random.Random) -> float:
    """Returns the seconds to wait before the next try: the backoff's if there is one, else the fixed delay.

    Args:
        policy: the task's or job's retry policy.
        tries_made: retries (or polls) made before, 0 for the first.
        rng: where the jitter comes from.
    """
    if policy.backoff is None:
        return policy.delay_s
    return _backoff(policy.backoff, tries_made, rng)


def longest_delay(policy: RetryPolicy) -> float:
    """Returns the most seconds that the policy ever waits."""
    return policy.delay_s if policy.backoff is None else policy.backoff.max_s


def _backoff(policy: BackoffPolicy, tries_made: int, rng: random.Random) -> float:
    try:
        delay_s = min(policy.min_s * policy.factor**tries_made, policy.max_s)
    except OverflowError:
        delay_s = policy.max_s
    if policy.jitter:
        delay_s *= 1 + policy.jitter * rng.uniform(-1, 1)
    return min(max(delay_s, 0.0), policy.max_s)
