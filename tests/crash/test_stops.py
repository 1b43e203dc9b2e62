"""Ctrl-C and SIGTERM: the exit code says so, nothing but a clean end is seen, and the command can be run again (O4)."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import TEST_KEY

SIMULATE = ["simulate", "--from", "2026-01-01", "--to", "2026-01-20", "--subscribers", "2000", "--provinces", "1"]


def start(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cleanbill.entry", *SIMULATE],
        env=os.environ | {"CLEANBILL_HOME": str(home), "CLEANBILL_PSEUDONYM_KEY": TEST_KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_command_stops_without_a_traceback_and_runs_again(tmp_path: Path, kind: signal.Signals) -> None:
    undisturbed = start(tmp_path / "undisturbed")
    undisturbed.communicate()
    home = tmp_path / "stopped"
    # At work: it has told so. The second time a while later.
    for delay in (0.0, 0.3):
        command = start(home)
        assert command.stderr is not None
        command.stderr.readline()
        time.sleep(delay)
        command.send_signal(kind)
        _, errors = command.communicate(timeout=60)
        assert "Traceback" not in errors
        assert "unexpected" not in errors
        assert command.returncode in (130, 0)
    again = start(home)
    again.communicate()
    assert again.returncode == 0
    assert files(home) == files(tmp_path / "undisturbed")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_still_loads_just_ends(tmp_path: Path, kind: signal.Signals) -> None:
    command = start(tmp_path)
    time.sleep(0.3)
    command.send_signal(kind)
    _, errors = command.communicate(timeout=60)
    assert "Traceback" not in errors
    assert command.returncode in (-kind, -signal.SIGINT, 130)  # once loaded, both are taken as an interrupt
