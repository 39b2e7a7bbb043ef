"""From a URL to a backend. Drivers are imported only when their scheme is used."""

import importlib
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from brokers.base import Broker
from brokers.errors import UnknownBrokerError

#: Scheme -> (module with ``from_url``, extra that installs its driver, top-level package of the driver).
_BACKENDS: Final[dict[str, tuple[str, str, str]]] = {
    "memory": ("brokers.memory", "", ""),
    "redis": ("brokers.redis", "redis", "redis"),
    "rediss": ("brokers.redis", "redis", "redis"),
    "kafka": ("brokers.kafka", "kafka", "aiokafka"),
    "kafkas": ("brokers.kafka", "kafka", "aiokafka"),
    "pulsar": ("brokers.pulsar", "pulsar", "pulsar"),
    "pulsar+ssl": ("brokers.pulsar", "pulsar", "pulsar"),
}


def make_broker(url: str) -> Broker:
    """Returns a broker for a URL, not yet opened.

    Raises:
        UnknownBrokerError: no backend has this scheme, its driver is not installed, or the URL is malformed.
    """
    scheme = url.partition("://")[0].lower()
    if "://" not in url or scheme not in _BACKENDS:
        known = ", ".join(f"{name}://" for name in _BACKENDS)
        raise UnknownBrokerError(f"no broker speaks {_shown(url)}; known are {known}")
    module, extra, driver = _BACKENDS[scheme]
    try:
        make: Callable[[str], Broker] = importlib.import_module(module).from_url
    except ModuleNotFoundError as exc:
        if not driver or (exc.name or "").partition(".")[0] != driver:
            raise
        raise UnknownBrokerError(f"{scheme}:// needs a driver: pip install 'formicary[{extra}]'") from exc
    try:
        return make(url)
    except ValueError as exc:
        raise UnknownBrokerError(f"{_shown(url)}: {exc}") from exc


def _shown(url: str) -> str:
    """Returns the URL without what may be a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "this URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme else repr(url.rpartition("@")[2])
