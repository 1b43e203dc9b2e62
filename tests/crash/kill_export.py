"""Kills the exporter again and again while a poller looks every 10 ms; prints what came of it as JSON (E1).

usage: python -m tests.crash.kill_export FOLDER SEED KILLS
"""

import csv
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from cleanbill import billing_feed
from cleanbill.settings import get_settings

from tests.crash import killer
from tests.crash.state import WITH_A_CLOCK, files_state
from tests.feed_warehouse import MONTH, make_warehouse

LOOK_EVERY_SECONDS = 0.01


def look(home: Path) -> int:
    """Read what is exported as the billing system would and return how many versions there are.

    Raises:
        AssertionError: a version is not whole, or something else is visible.
    """
    folders = [path for path in (home / "exports" / "billing").glob("*/*") if path.name != "acks"]
    for version in folders:
        assert version.name == "v1", f"{version} is visible"
        raw = (version / "manifest.json").read_bytes()
        assert (version / "_SUCCESS").read_text().strip() == hashlib.sha256(raw).hexdigest()
        manifest = json.loads(raw)
        for entry in manifest["files"]:
            content = (version / entry["name"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["name"]
        charges = list(version.glob("charges_*.csv.gz"))
        lines = [
            line for path in charges for line in csv.DictReader(gzip.decompress(path.read_bytes()).decode().split())
        ]
        assert len(lines) > 0
        assert (version / "approval.json").exists()
    return len(folders)


def exported(home: Path) -> dict[str, object]:
    """Return the sha256 of every exported file; of those that hold the time of day, only that they are there."""
    return files_state(home, ("exports/",), WITH_A_CLOCK)


def export() -> None:
    """Do what the tasks do, each of which is tried again until it has ended."""
    if not billing_feed.sealed_folder(MONTH).exists():
        billing_feed.draft_feed(MONTH)
        billing_feed.approve_feed(MONTH, "Li Lei")
    billing_feed.seal_feed(MONTH)


def watch(child: int, home: Path, kill_at: float) -> tuple[int, int]:
    """Look until the child has ended; kill it at a moment. Return its exit code and the number of looks."""
    looks = 0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        looks += 1
        look(home)
        if ended:
            return os.waitstatus_to_exitcode(status), looks
        if time.monotonic() > kill_at:
            os.kill(child, signal.SIGKILL)
        time.sleep(LOOK_EVERY_SECONDS)


def main(folder: Path, seed: int, kills: int) -> dict[str, object]:
    rng = random.Random(seed)
    template, home = folder / "template", folder / "home"
    os.environ["CLEANBILL_HOME"] = str(template)
    # In children: this process must stay free of DuckDB's threads.
    assert killer.run(lambda: (make_warehouse(), billing_feed.prepare_month(MONTH))) == 0
    os.environ["CLEANBILL_HOME"] = str(home)
    get_settings.cache_clear()
    shutil.copytree(template, home)
    started = time.monotonic()
    assert killer.run(export) == 0
    length = time.monotonic() - started
    reference = exported(home)
    done = looks = sealed = 0
    codes: dict[int, int] = {}
    while done < kills:
        shutil.rmtree(home)
        shutil.copytree(template, home)
        code = killer.KILLED
        while code == killer.KILLED:
            # Mostly at an act on a file, sometimes by the clock; and now and then it may end.
            if rng.random() < 0.7:
                child = killer.start_killed_at(rng.randrange(1, 70), str(home), export)
                kill_at = float("inf")
            else:
                child = killer.start(export)
                kill_at = time.monotonic() + rng.uniform(0, length)
            code, count = watch(child, home, kill_at)
            looks += count
            done += code == killer.KILLED
            codes[code] = codes.get(code, 0) + 1
        if exported(home) != reference:
            return {"differing": sorted(exported(home).items() ^ reference.items())}
        leftovers = [
            str(path.relative_to(home)) for path in home.rglob("*") if path.name.startswith(("discarded-", "drafting"))
        ]
        if leftovers:
            return {"leftovers": leftovers}
        sealed += 1
    return {"kills": done, "sealed": sealed, "looks": looks, "codes": codes}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
