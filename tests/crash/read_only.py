"""Runs the stages with one folder after the other mounted read-only; prints what came of it as JSON (R3).

Start this under `unshare --mount` (root) or `unshare -rm`: the root of a container may write where modes forbid it.

usage: python -m tests.crash.read_only FOLDER
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.crash import killer
from tests.crash.small_disk import STAGES, tell_failure, use
from tests.crash.state import files_state

# Reading is all that is done to landing/, so there it must go well.
CASES = [
    ("ingest", "landing", True),
    ("ingest", "lake", False),
    ("ingest", "quarantine", False),
    ("ingest", "warehouse", False),
    ("publish", "marts", False),
    ("publish", "marts/parquet", False),
    ("seal", "exports", False),
    ("seal", "warehouse/billing", False),
]


def try_case(stage: str, name: str, may_work: bool, folder: Path) -> str | None:
    """Return what is wrong, or None."""
    prepare, work, look = STAGES[stage]
    home, note = folder / "home", folder / "note"
    use(home)
    assert killer.run(lambda: prepare(home)) == 0
    target = home / name
    target.mkdir(parents=True, exist_ok=True)
    (target / "was there").touch()
    before = files_state(home, ("marts/", "exports/billing/"), ())
    subprocess.run(["mount", "--bind", str(target), str(target)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(target)], check=True)
    code = killer.run(tell_failure(work, home, note))
    told = note.read_text() if note.exists() else "nothing"
    after = files_state(home, ("marts/", "exports/billing/"), ())
    subprocess.run(["umount", str(target)], check=True)
    if may_work:
        return None if code == 0 else f"stopped: {told}"
    if code == 0:
        return "went on"
    if ("StorageFailed" not in told and "IngestFailed" not in told) or "read-only" not in told or str(home) not in told:
        return f"unclear: {told}"
    if before != after:
        return f"left something: {sorted(after.keys() - before.keys())}"
    return None if killer.run(work) == 0 and look(home) else "does not go on when it may write again"


def main(folder: Path) -> dict[str, str]:
    wrong = {}
    for stage, name, may_work in CASES:
        if problem := try_case(stage, name, may_work, folder):
            wrong[f"{stage} with {name} read-only"] = problem
        shutil.rmtree(folder / "home")
        (folder / "note").unlink(missing_ok=True)
    return wrong


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
