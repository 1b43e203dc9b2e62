"""Disks that are full or may not be written: one clear line, nothing half done, and a later run goes on (R3)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cleanbill.settings import REPOSITORY

from tests.conftest import TEST_KEY


def own_mounts() -> list[str]:
    """Return the command before a command that gives it mounts of its own: as root, or in a user namespace."""
    if os.geteuid() == 0:
        return ["unshare", "--mount"]
    return ["unshare", "--user", "--map-root-user", "--mount"]


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = [*own_mounts(), "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="this machine allows no mounts, not even in a namespace")


def run_with_mounts(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*own_mounts(), sys.executable, "-m", module, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"CLEANBILL_PSEUDONYM_KEY": TEST_KEY},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_mounts
@pytest.mark.parametrize("sizes", [5, pytest.param(20, marks=pytest.mark.soak)])
def test_a_full_disk_stops_cleanly_and_the_work_goes_on_when_there_is_room(tmp_path: Path, sizes: int) -> None:
    finished = run_with_mounts("tests.crash.small_disk", tmp_path, sizes)
    assert finished.returncode == 0, finished.stderr[-3000:]
    result = json.loads(finished.stdout.splitlines()[-1])
    print(result)
    for stage in ("ingest", "publish", "seal"):
        assert result[stage].keys() == {"full"}, result
        assert result[stage]["full"] > 0, "the disk was never full"


@needs_mounts
def test_a_folder_that_may_not_be_written_stops_cleanly(tmp_path: Path) -> None:
    finished = run_with_mounts("tests.crash.read_only", tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert json.loads(finished.stdout.splitlines()[-1]) == {}
