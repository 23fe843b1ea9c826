"""Who may ask: optional API keys, and the rate limit of each client."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import Request

from api.limits import RateLimiter
from api.problems import Code, Problem

KEY_HEADER = "x-api-key"


class Access:
    """Knows only the digests of the keys, so that neither logs nor dumps can hold a key."""

    def __init__(self, keys: Sequence[str], rates: RateLimiter) -> None:
        self._digests = [_digest(key) for key in keys]
        self._rates = rates

    @property
    def needs_key(self) -> bool:
        """Tell whether requests have to carry a key."""
        return bool(self._digests)

    def admit(self, request: Request, count: int = 1) -> str:
        """Name the client (`key-3`, or its address) and charge it for `count` pictures.

        Raises:
            Problem: no key, an unknown key, or too many pictures a minute.
        """
        client = self._identify(request)
        self._rates.take(client, count)
        return client

    def _identify(self, request: Request) -> str:
        if not self._digests:
            return request.client.host if request.client else "unknown"
        given = request.headers.get(KEY_HEADER)
        if given is None:
            raise Problem(Code.UNAUTHORIZED, "this server asks for an API key; send it in the header X-API-Key")
        digest = _digest(given)
        # Every key is compared, in constant time: neither which key nor how much of it fits can be measured.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise Problem(Code.UNAUTHORIZED, "the API key is not known here; check the header X-API-Key")
        return f"key-{matches.index(True) + 1}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
