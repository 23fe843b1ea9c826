"""How commands and stages end: an error of this package is a message and an exit code, SIGTERM acts like Ctrl-C."""

import errno
import io
import signal
import sys
from collections.abc import Callable
from types import FrameType

from emotion_yolo.errors import EmotionYoloError, StorageError

_INTERRUPTED = 130  # what a shell gives a command that Ctrl-C ended
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS})

_pending = False  # an interruption has come


def run_process(main: Callable[[], object], *, interrupted: str) -> None:
    """Call `main`, which `finally` blocks may rely on: signals end it by an exception.

    `interrupted` is the message for an interrupted process: what becomes of its work.

    Raises:
        SystemExit: with an error's own exit code, or 130 after SIGINT or SIGTERM.
    """
    global _pending
    _pending = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another encoding, or a name that is not UTF-8
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # which a shell sets for what runs in the background
            signal.signal(number, _interrupt)
    try:
        main()
    except EmotionYoloError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        print(f"error: {error.filename}: {error.strerror}; free space or grant access, then repeat", file=sys.stderr)
        raise SystemExit(StorageError.exit_code) from error
    except KeyboardInterrupt as error:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from error


def raise_if_interrupted() -> None:
    """Raise the interruption again if whatever ran when the signal came has swallowed it; for loops that run long.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM has come.
    """
    if _pending:
        raise _Interrupted


class _Interrupted(KeyboardInterrupt):
    """A class of its own: a plain one that passes through an `exec` of a string, which libraries call, makes
    `python -m` end by the signal after all, whatever exit code was asked for (CPython 3.11).
    """


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    global _pending
    _pending = True
    raise _Interrupted
