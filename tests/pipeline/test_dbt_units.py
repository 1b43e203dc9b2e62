"""Runs the dbt unit tests (the boundaries of every rule) against a built warehouse, whose tables give the types."""

import os
import subprocess
import sys
from pathlib import Path

from cleanbill.settings import REPOSITORY

from tests.conftest import TEST_KEY


def test_every_dbt_unit_test_passes(built_home: Path) -> None:
    project = REPOSITORY / "dbt_project"
    command = [sys.executable, "-m", "cleanbill.dbt_process", "test", "--select", "test_type:unit"]
    command += ["--project-dir", str(project), "--profiles-dir", str(project)]
    command += ["--target-path", str(built_home / "dbt" / "target"), "--log-path", str(built_home / "dbt" / "logs")]
    environment = os.environ | {
        "CLEANBILL_HOME": str(built_home),
        "CLEANBILL_PSEUDONYM_KEY": TEST_KEY,
        "CLEANBILL_DBT_DATABASE": str(built_home / "warehouse" / "cleanbill.duckdb"),
    }
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout[-4000:]
    declared = sum(path.read_text().count("    model: ") for path in (project / "models").glob("*/*.yml"))
    assert declared > 0
    assert f"PASS={declared} " in outcome.stdout, outcome.stdout[-500:]
