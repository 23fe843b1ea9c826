"""Notes every look-up of a name, and every address connected to, of Python processes and their children."""

import os
from pathlib import Path

_PROGRAM = """
import os, sys
def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect"):
        with open(os.environ["LOOKED_UP"], "a") as notes:
            notes.write(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}\\n")
sys.addaudithook(note)
"""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Recorder:
    """A folder that makes Python note what it looks up, and its notes."""

    def __init__(self, folder: Path, *, path: str) -> None:
        self._notes = folder / "looked-up"
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(_PROGRAM)
        self._notes.touch()
        self.environment = {
            "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{path}",
            "LOOKED_UP": str(self._notes),
            "CI": "",  # under which OpenVINO and others send nothing by themselves
        }
        """Variables of the processes to be watched; `path` is the rest of their PYTHONPATH."""

    @property
    def looked_up(self) -> list[str]:
        """What went beyond this machine: names of other hosts, and addresses that are neither loopback nor a file."""
        lines = self._notes.read_text().splitlines()
        return [line for line in lines if not line.split(" ", 1)[1].startswith("/") and not _is_local(line)]


def _is_local(line: str) -> bool:
    return any(name in line for name in _LOOPBACK)
