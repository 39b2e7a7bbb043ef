"""URLs of brokers: ``scheme://user:password@host:port,host:port/path?option=value``."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """The parts of a URL; percent signs are resolved."""

    scheme: str
    user: str
    password: str
    hosts: tuple[str, ...]
    path: str
    options: dict[str, str]

    @property
    def shown(self) -> str:
        """Returns the URL for people: without user, password and options."""
        return f"{self.scheme}://{','.join(self.hosts)}"

    def seconds(self, option: str, default: float) -> float:
        """Returns an option that is a number of seconds.

        Raises:
            ValueError: it is none, or not positive.
        """
        text = self.options.get(option)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if value <= 0:
            raise ValueError(f"option {option} must be a number of seconds above 0, not {text!r}")
        return value


def parse_url(url: str, default_port: int, options: Collection[str]) -> BrokerUrl:
    """Returns the parts of a broker's URL.

    Raises:
        ValueError: it has no host, a port that is none, or an option that is not among ``options``.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    given = dict(parse_qsl(query, keep_blank_values=True))
    for option in given:
        if option not in options:
            raise ValueError(f"unknown option {option!r}; known are {', '.join(sorted(options))}")
    places = tuple(_with_port(host, default_port) for host in hosts.split(","))
    return BrokerUrl(scheme.lower(), unquote(user), unquote(password), places, unquote(path), given)


def _with_port(host: str, default_port: int) -> str:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, str(default_port)
    if not name:
        raise ValueError("it names no host; write scheme://host:port")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{port!r} is no port")
    return f"{name}:{port}"
