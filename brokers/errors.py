"""What a broker can tell its caller, one class per decision.

BrokerError
├── BrokerUnavailableError   the server cannot be reached now; a later call may succeed
├── BrokerRefusedError       wrong credentials, certificates or settings, or no permission; trying again does not help
├── MessageTooLargeError     this one message can never be published
├── PositionTrimmedError     the log does not reach back to the position asked for
├── BrokerClosedError        ``close`` was called, or ``open`` was not
└── UnknownBrokerError       no backend for this URL, or its driver is not installed
"""


def words_of(exc: BaseException) -> str:
    """Returns what a driver's error says, with the name of its class unless it says that itself."""
    name, words = type(exc).__name__, str(exc)
    if not words:
        return name
    return words if name in words else f"{name}: {words}"


class BrokerError(Exception):
    """Root of the brokers' errors."""


class BrokerUnavailableError(BrokerError):
    """The server cannot be reached now."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"broker {url} cannot be reached: {reason}")
        self.url = url
        self.reason = reason


class BrokerRefusedError(BrokerError):
    """The server refused the credentials or the operation."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"broker {url} refused: {reason}; check user, password, token, certificates and grants")
        self.url = url
        self.reason = reason


class MessageTooLargeError(BrokerError):
    """A message exceeds what the backend carries; nothing of its batch was published."""

    def __init__(self, topic: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"a message of {size_bytes} bytes to {topic} exceeds the limit of {limit_bytes} bytes")
        self.topic = topic
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class PositionTrimmedError(BrokerError):
    """Messages after the position asked for were trimmed."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"the log of {topic} was trimmed beyond the position to read from")
        self.topic = topic


class BrokerClosedError(BrokerError):
    """The broker or subscription is closed, or was never opened."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is closed")


class UnknownBrokerError(BrokerError):
    """No backend serves this URL, or its driver is missing."""
