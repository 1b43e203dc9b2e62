"""Runs the stages that write on disks that are too small, then gives them room; prints what came of it as JSON (R3).

A disk is a tmpfs in a mount namespace of its own: start this under `unshare --mount` (root) or `unshare -rm`.

usage: python -m tests.crash.small_disk FOLDER SIZES [STAGE …]
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

from cleanbill import billing_feed, publish
from cleanbill.errors import StorageFailed
from cleanbill.ingest import ingest
from cleanbill.settings import get_settings
from cleanbill.storage_faults import storage_failure

from tests.crash import killer
from tests.crash.kill_export import export
from tests.crash.kill_export import look as look_at_exports
from tests.crash.kill_ingest import write_world
from tests.crash.state import WITH_A_CLOCK, files_state, ingest_state
from tests.feed_warehouse import MONTH, make_warehouse
from tests.gate_warehouse import write_good_warehouse

BLOCK = 4096


def take_in() -> None:
    ingest(date(2026, 10, 2), date(2026, 10, 3))


def prepare_publishing(home: Path) -> None:
    from tests.unit.test_publish import _record_green

    (home / "warehouse").mkdir(parents=True)
    write_good_warehouse(home / "warehouse" / "cleanbill.duckdb")
    _record_green(get_settings(), "run")


# stage → what it starts from, what it does, what it leaves that may be compared
STAGES: dict[str, tuple[Callable[[Path], object], Callable[[], object], Callable[[Path], dict]]] = {
    "ingest": (lambda home: write_world(home, random.Random(1)), take_in, ingest_state),
    "publish": (
        prepare_publishing,
        lambda: publish.publish_marts("run"),
        lambda home: files_state(home, ("marts/",), WITH_A_CLOCK),
    ),
    "seal": (
        lambda home: (make_warehouse(), billing_feed.prepare_month(MONTH)),
        export,
        lambda home: files_state(home, ("exports/",), WITH_A_CLOCK),
    ),
}


def use(home: Path) -> None:
    os.environ["CLEANBILL_HOME"] = str(home)
    get_settings.cache_clear()


def used_bytes(folder: Path) -> int:
    """Return what the files of a folder take on a disk."""
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in folder.rglob("*") if path.is_file())


def tell_failure(work: Callable[[], object], home: Path, note: Path) -> Callable[[], None]:
    """Return the work, with the error a user would be shown written down."""

    def told() -> None:
        try:
            work()
        except Exception as error:
            shown = error if isinstance(error, StorageFailed) else storage_failure(error, home)
            note.write_text(f"{type(shown).__name__}: {shown}")
            raise

    return told


def try_stage(name: str, folder: Path, sizes: int) -> dict[str, object]:
    prepare, work, look = STAGES[name]
    template, plenty, disk, note = (folder / f"{name}-{part}" for part in ("template", "plenty", "disk", "note"))
    template.mkdir()
    disk.mkdir()
    use(template)
    assert killer.run(lambda: prepare(template)) == 0
    shutil.copytree(template, plenty)
    use(plenty)
    assert killer.run(work) == 0
    expected = look(plenty)
    start, end = used_bytes(template), used_bytes(plenty)
    use(disk)
    full = 0
    for number in range(sizes):
        size = start + 4 * BLOCK + (end - start) * number // sizes
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size // BLOCK * BLOCK}", "none", str(disk)]
        subprocess.run(mount, check=True)
        shutil.copytree(template, disk, dirs_exist_ok=True)
        note.unlink(missing_ok=True)
        code = killer.run(tell_failure(work, disk, note))
        if code:
            full += 1
            told = note.read_text() if note.exists() else "no error told"
            is_clear = "full disk" in told and "bytes free" in told and str(disk) in told
            if not is_clear:
                return {"unclear": told, "stage": name, "size": size}
            look_at_exports(disk)  # nothing, or a whole version whose entry in the ledger found no room
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        if (code and killer.run(work) != 0) or look(disk) != expected:
            found = look(disk)
            differing = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
            return {"differing after room was made": differing, "stage": name, "size": size}
        subprocess.run(["umount", str(disk)], check=True)
    return {"full": full}


def main(folder: Path, sizes: int, stages: list[str]) -> dict[str, object]:
    return {name: try_stage(name, folder, sizes) for name in stages or STAGES}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
