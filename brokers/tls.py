"""TLS for all backends: whom to trust, and which certificate to show."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from brokers.errors import BrokerRefusedError, BrokerUnavailableError
from brokers.urls import BrokerUrl

#: Options of a URL: file with the authority to trust, and the client's own certificate with its key.
TLS_OPTIONS: Final = ("ca", "cert", "key")


def tls_context(url: BrokerUrl) -> ssl.SSLContext:
    """Returns what verifies the server and its name, trusting ``ca`` or else the system's authorities.

    Raises:
        ValueError: a file cannot be read or holds no certificate, or a key has no certificate.
    """
    ca, cert, key = (url.options.get(option) for option in TLS_OPTIONS)
    if key and not cert:
        raise ValueError("option key needs option cert")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as exc:
        raise ValueError(f"option ca: {ca}: {_reason(exc)}") from exc
    if cert:
        try:
            context.load_cert_chain(cert, key)
        except OSError as exc:
            raise ValueError(f"options cert and key: {cert}, {key or cert}: {_reason(exc)}") from exc
    return context


def _reason(exc: OSError) -> str:
    return f"not in PEM format ({exc})" if isinstance(exc, ssl.SSLError) else exc.strerror or str(exc)


@contextmanager
def untrusted_is_refused(url: BrokerUrl) -> Iterator[None]:
    """Tells a server whose certificate is not trusted from one that cannot be reached: waiting does not help.

    For the first connection only: later, a bad certificate is waited out like any other fault of the server.
    """
    try:
        yield
    except BrokerUnavailableError as exc:
        found: BaseException | None = exc
        while found is not None and not isinstance(found, ssl.SSLCertVerificationError):
            found = found.__cause__ or found.__context__
        if found is None:
            raise
        raise BrokerRefusedError(url.shown, f"its certificate is not trusted: {found.verify_message}") from exc
