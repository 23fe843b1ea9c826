"""The stages of dvc.yaml: parameters in, pure functions, files out."""

import errno
import signal
import sys
from collections.abc import Callable
from types import FrameType

from emotion_yolo.errors import EmotionYoloError, StorageError

_INTERRUPTED = 130  # what a shell gives a command that Ctrl-C ended


def run_stage(main: Callable[[], None], *, interrupted: str = "the next `dvc repro` runs this stage anew") -> None:
    """Run a stage as a process: an error of ours is a message and an exit code, SIGTERM is taken like Ctrl-C.

    `interrupted` says what becomes of a stage that was cut off.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # which a shell sets for what runs in the background
            signal.signal(number, _interrupt)
    try:
        main()
    except EmotionYoloError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        print(f"error: {error.filename}: {error.strerror}; free space or grant access, then repeat", file=sys.stderr)
        raise SystemExit(StorageError.exit_code) from error
    except KeyboardInterrupt as error:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from error


class _Interrupted(KeyboardInterrupt):
    """A class of its own: a plain one that passes through an `exec` of a string, which libraries call, makes
    `python -m` end by the signal after all, whatever exit code was asked for (CPython 3.11).
    """


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise _Interrupted
