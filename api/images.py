"""From the bytes of a request to a picture: inspected, within the memory budget, decoded, or a `Problem`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from emotion_yolo.imaging import ImageLimits, Picture, Plan, Refusal, RefusedImageError, inspect
from emotion_yolo.isolation.pool import DecoderPool

from .memory import Hold, MemoryBudget
from .problems import Code, Problem
from .settings import Settings


class PictureDecoder:
    """Decodes the pictures of all requests. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self.limits = ImageLimits(
            settings.max_bytes,
            settings.max_pixels,
            min_side=settings.min_side,
            max_side=settings.max_side,
            max_memory=settings.picture_memory,
        )
        self.budget = MemoryBudget(settings.memory_budget, reserved=settings.picture_memory)
        self._pool = DecoderPool(self.limits, seats=settings.workers, cpu_s=settings.decode_s)

    def inspect(self, data: bytes, *, fit: int | None = None) -> Plan:
        """Judge a picture by its structure.

        Raises:
            Problem: it is refused.
        """
        with _problems():
            return inspect(data, self.limits, fit=fit)

    def hold(self, count: int, *, seconds_left: float) -> Hold:
        """Take memory for a picture.

        Raises:
            Problem: none became free in time.
        """
        return self.budget.hold(count, timeout_s=seconds_left)

    def decode(self, plan: Plan, *, seconds_left: float) -> Picture:
        """Decode an inspected picture.

        Raises:
            Problem: it is damaged, or not decoded in time.
        """
        with _problems():
            return self._pool.decode(plan, timeout_s=seconds_left)

    @contextmanager
    def decoded(self, data: bytes, *, seconds_left: float, fit: int) -> Iterator[Picture]:
        """Decode a picture for the network; its memory counts until the end of the `with` block.

        Raises:
            Problem: it is refused, or there is no memory or time for it.
        """
        end = time.perf_counter() + seconds_left
        plan = self.inspect(data, fit=fit)
        with self.hold(plan.memory, seconds_left=seconds_left) as held:
            picture = self.decode(plan, seconds_left=end - time.perf_counter())
            held.shrink(picture.pixels.nbytes)
            yield picture

    def close(self) -> None:
        """End the decoder processes; pictures being decoded are lost."""
        self._pool.close()


@contextmanager
def _problems() -> Iterator[None]:
    try:
        yield
    except RefusedImageError as error:
        if error.code is Refusal.OUT_OF_MEMORY:
            message = "the server has no memory left for this picture; try again"
            raise Problem(Code.OVERLOADED, message, retry_after_s=5) from error
        raise Problem(Code(error.code), str(error)) from error
    except TimeoutError as error:
        message = "the picture was not decoded in time; the server is busy, try again"
        raise Problem(Code.DEADLINE_EXCEEDED, message, retry_after_s=2) from error
