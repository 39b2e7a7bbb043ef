"""What Redis' own settings mean for messages that it has confirmed."""

from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions

from brokers.base import Durability

#: Setting -> (what is wanted, what may happen otherwise).
_WANTED: Final = {
    "appendonly": ("yes", "a server that is killed forgets what was published"),
    "appendfsync": ("always", "a loss of power may take what was published in the last second"),
    "maxmemory-policy": ("noeviction", "a server that runs out of memory throws messages away"),
}


async def durability(client: Any) -> Sequence[Durability]:
    """Returns the server's settings; without a value where it does not let the user ask."""
    return [await _ask(client, name, wanted, risk) for name, (wanted, risk) in _WANTED.items()]


async def _ask(client: Any, name: str, wanted: str, risk: str) -> Durability:
    try:
        found = (await client.config_get(name)).get(name)
    except exceptions.ResponseError:
        found = None  # no permission for CONFIG GET
    value = found.decode() if isinstance(found, bytes) else found
    return Durability(name, value, wanted, value == wanted, risk)
