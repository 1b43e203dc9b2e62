"""kill -9 at any moment: nothing acknowledged is lost or doubled, a re-run ends where no kill was (R1, E1)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cleanbill.settings import REPOSITORY

from tests.conftest import TEST_KEY

SEED = 20061116


def run_driver(name: str, *arguments: object) -> dict:
    """Run a program that forks and kills (pytest itself has threads) and return what it printed."""
    print(f"seed {SEED}")
    finished = subprocess.run(
        [sys.executable, "-m", f"tests.crash.{name}", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "CLEANBILL_PSEUDONYM_KEY": TEST_KEY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    result = json.loads(finished.stdout.splitlines()[-1])
    print(result)
    assert "Traceback" not in finished.stderr
    return result


@pytest.mark.parametrize("kills", [100, pytest.param(2000, marks=pytest.mark.soak)])
def test_ingest_killed_at_every_act_and_any_moment(tmp_path: Path, kills: int) -> None:
    result = run_driver("kill_ingest", tmp_path, SEED, kills)
    assert "differing" not in result, result
    assert (result["kills"], result["lost"]) == (kills, 0)
    assert result["promised"] > 0
    # Killed or ended well: a killed run never leaves something the next one stumbles over.
    assert set(result["codes"]) == {"-9", "0"}


@pytest.mark.parametrize("kills", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_exporter_killed_while_the_billing_system_looks(tmp_path: Path, kills: int) -> None:
    """E1: the poller sees nothing, or all of a version; the version that comes out in the end is the same."""
    result = run_driver("kill_export", tmp_path, SEED, kills)
    assert result.keys() == {"kills", "sealed", "looks", "codes"}, result
    assert result["kills"] >= kills
    assert result["sealed"] > 0
    assert set(result["codes"]) == {"-9", "0"}
