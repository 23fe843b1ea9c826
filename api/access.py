"""Authentication and rate limits: optional API keys, a request rate for each client."""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from .limits import RateLimiter
from .problems import Code, Problem

KEY_HEADER = "x-api-key"


def client_group(host: str) -> str:
    """Return the identity of the client at an address: the address, or the /64 network of an IPv6 address.

    A single host usually has a whole /64 to choose addresses from.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)


def is_welcome(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """Return whether a page of `origin` may open a WebSocket on this server, which the page knows as `host`.

    CORS does not apply to WebSockets, so the server checks the origin. Clients other than browsers send none.
    """
    if origin is None or origin in allowed:
        return True
    place = urlsplit(origin).netloc
    return bool(place) and place.lower() == (host or "").lower()


class Access:
    """Stores only the digests of the keys, so that neither logs nor dumps can leak one."""

    def __init__(self, keys: Sequence[str], rates: RateLimiter) -> None:
        self._digests = [_digest(key) for key in keys]
        self._rates = rates

    @property
    def has_keys(self) -> bool:
        """Return whether a key is required."""
        return bool(self._digests)

    def charge(self, client: str, count: int = 1) -> None:
        """Charge a client for `count` pictures.

        Raises:
            Problem: too many pictures a minute.
        """
        self._rates.take(client, count)

    def identify(self, request: HTTPConnection, given: str | None = None) -> str:
        """Return the client's name: `key-3`, or its address. `given` is the key if it did not come in the header.

        Raises:
            Problem: no key, or an unknown one.
        """
        if not self._digests:
            return client_group(request.client.host) if request.client else "unknown"
        given = request.headers.get(KEY_HEADER, given)
        if given is None:
            raise Problem(Code.UNAUTHORIZED, "this server requires an API key; send it in the header X-API-Key")
        digest = _digest(given)
        # Every key is compared, in constant time: neither which key nor how much of it fits can be measured.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise Problem(Code.UNAUTHORIZED, "unknown API key; check the header X-API-Key")
        return f"key-{matches.index(True) + 1}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
