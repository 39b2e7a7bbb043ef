"""Functions for PYTHON tasks: JSON in, JSON out, synchronous or asynchronous."""

from itertools import pairwise
from math import isqrt


def split(limit: int, share_count: int) -> list[list[int]]:
    """Divides ``range(limit)`` into ``[start, stop]`` shares."""
    edges = [limit * number // share_count for number in range(share_count + 1)]
    return [[start, stop] for start, stop in pairwise(edges)]


def count(share: list[int]) -> int:
    """Counts the primes from ``start`` up to, not including, ``stop``."""
    start, stop = share
    small = sieve(isqrt(stop) + 1)
    is_prime = bytearray([1]) * (stop - start)
    for prime in small:
        first = max(prime * prime, -(-start // prime) * prime)
        is_prime[first - start :: prime] = bytes(len(range(first, stop, prime)))
    return sum(is_prime) - sum(1 for number in (0, 1) if start <= number < stop)


def sieve(limit: int) -> list[int]:
    """Returns the primes below ``limit``."""
    return [number for number in range(2, limit) if all(number % low for low in range(2, isqrt(number) + 1))]


async def total(limit: int, counts: list[int]) -> dict[str, int]:
    """Adds the shares up. Asynchronous functions run in a loop of their own."""
    print(f"{sum(counts)} primes below {limit}")
    return {"limit": limit, "primes": sum(counts)}
