"""Differences of the last evaluation from the committed one, if the machine alone can explain them."""

import json
import subprocess
from pathlib import Path
from typing import Any

from emotion_yolo.evaluation.summary import DETAILS, TITLES
from emotion_yolo.paths import EVALUATE_REPORT, METRICS, RUN

_INPUTS = ("params.yaml", "data.dvc", "dvc.yaml", "src")


def other_machine(root: Path = Path()) -> str:
    """Return a note on figures that differ from the commit's although nothing else does; else ''.

    It is empty as well where params, data or code differ from the commit, outside git, and before an evaluation.
    """
    try:
        if _git(root, "status", "--porcelain", "--", *_INPUTS):
            return ""
        committed = json.loads(_git(root, "show", f"HEAD:./{METRICS.as_posix()}"))
        details = json.loads((root / EVALUATE_REPORT / DETAILS).read_text("utf-8"))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return ""
    here, intervals = details["metrics"], details["intervals"]
    changed = [name for name in TITLES if name in here and name in committed and here[name] != committed[name]]
    if not changed:
        return ""
    name = changed[0]
    count = "1 figure differs" if len(changed) == 1 else f"{len(changed)} figures differ"
    beyond = [TITLES[x] for x in changed if x in intervals and not intervals[x][0] <= committed[x] <= intervals[x][1]]
    if beyond:
        verdict = f"outside of their 95 % intervals here: {', '.join(beyond)}; that is more than a machine explains"
    else:
        verdict = "all within their 95 % intervals here, as expected"
    return (
        f"{count} from those committed, such as {TITLES[name]}: {committed[name]:.3f} committed, "
        f"{here[name]:.3f} here; {verdict}. Other CPUs, precisions and numbers of threads add in another order "
        f"(docs/experiments.md, Reproducibility, names the machine of those committed).{_this_machine(root)}"
    )


def _this_machine(root: Path) -> str:
    try:
        run: dict[str, Any] = json.loads((root / RUN).read_text("utf-8"))["environment"]
        parts = [run["cpu"], run["device"], run["precision"], f"{run['threads']} threads", *run["cpu_features"]]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f" Trained here on {', '.join(map(str, parts))}."


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout
