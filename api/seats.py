"""The streams held at once, and which one gives way when there is no room."""

from collections import Counter
from typing import Protocol

from .problems import Code, Problem


class Seated(Protocol):
    """A stream that has a seat."""

    def give_way(self) -> None:
        """End: another client needs the seat."""


class StreamSeats:
    """Seats of streams, shared fairly: when all are taken, the client with the most streams loses one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._owners: dict[Seated, str] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._owners)

    def take(self, stream: Seated, client: str) -> None:
        """Take a seat for a stream of a client.

        Raises:
            Problem: there is none, and no other client has more than this one would have.
        """
        if len(self) >= self._limit:
            counts = Counter(self._owners.values())
            greedy, most = counts.most_common(1)[0]
            if most <= counts[client] + 1:
                raise Problem(Code.OVERLOADED, "the server holds as many streams as it can; try again", retry_after_s=5)
            latest = [other for other, owner in self._owners.items() if owner == greedy][-1]
            self.leave(latest)
            latest.give_way()
        self._owners[stream] = client

    def leave(self, stream: Seated) -> None:
        """Free the seat of a stream, if it has one."""
        self._owners.pop(stream, None)
