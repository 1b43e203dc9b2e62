"""kill -9 at any moment: nothing acknowledged is lost, nothing counts twice, a re-run ends where no kill was (R1)."""

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
