"""The command line: what it calls, what it says, how it ends."""

import csv
import io
import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import pytest
from cleanbill import billing_feed, cli, demo
from cleanbill.errors import RunFailed
from cleanbill.query import QueryResult
from cleanbill.settings import get_settings
from cleanbill.source_mapping import BUILT_IN
from cleanbill.terminal_views import write_csv

from tests.feed_warehouse import MONTH, make_warehouse
from tests.foreign_samples import put_sample


@pytest.fixture
def run(monkeypatch, capsys, cleanbill_home):
    """Run `main` in this process; returns (exit code, standard output, standard error)."""
    umask, handler = os.umask(0o022), signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cleanbill", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    yield call
    os.umask(umask)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def published(cleanbill_home):
    path = get_settings().published_marts
    path.parent.mkdir(parents=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table t as select '=1+1' as formula, '[red]x' as markup, 1000 as number")
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["bill"],
        ["bill", "2026-13"],
        ["bill", "2026-1"],
        ["bill", "../../etc"],
        ["bill", "2026-11; drop table x"],
        ["bill", "2026-11", "--auto-approve", "--approver", "Li Lei"],
        ["run", "--from", "2026-10-01"],
        ["run", "--from", "2026-10-32", "--to", "2026-11-01"],
        ["run", "--from", "2026-10-02", "--to", "2026-10-01"],
        ["explain", "0" * 32],
        ["query"],
        ["query", "select 1", "--max-rows", "0"],
        ["land", "ravenstack", "/no/such/file"],
        ["export-legacy", "2026-11", "--version", "0"],
        ["quarantine", "list", "--from", "yesterday"],
        ["quarantine", "replay"],
        ["quarantine", "replay", "--reason", "bad_code", "--mapping", "/no/such/file"],
        ["simulate"],
        ["simulate", "--from", "2026-10-01"],
        ["simulate", "--from", "2026-10-01", "--months", "1", "--to", "2026-10-02"],
    ],
)
def test_wrong_usage_ends_with_2(run, arguments):
    code, _, error = run(*arguments)
    assert code == 2
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["query", "drop table t"], "expected one SELECT"),
        (["explain", "0" * 32, "2026-11"], "cleanbill run --from"),
        (["explain", "x", "2026-11"], "32 hex digits"),
        (["bill", "2026-11", "--approver", "Li Lei"], "a draft to approve"),
        (["bill", "2026-11", "--approver", ""], "1 to 80 printable"),
        (["export-legacy", "2026-11"], "a sealed version"),
        (["quarantine", "replay", "--delivery", "x_20261101_y"], "none of that name"),
    ],
)
def test_an_error_on_purpose_is_one_line_and_1(run, arguments, words):
    code, _, error = run(*arguments)
    assert code == 1
    assert words in error
    assert error.startswith("cleanbill: ")
    assert error.count("\n") == 1
    assert "What to do" in error


def test_an_unexpected_error_is_masked_and_without_traceback(run, monkeypatch):
    def fail():
        raise ValueError("bad line\n13800001234,900001")

    monkeypatch.setattr("cleanbill.status.read_status", fail)
    code, _, error = run("status")
    assert code == 1
    assert "13800001234" not in error
    assert "Traceback" not in error
    assert "CLEANBILL_DEBUG=1" in error


def test_run_hands_over_the_range(run, monkeypatch):
    asked = []
    monkeypatch.setattr("cleanbill.airflow_runtime.run_daily", lambda first, last: asked.append((first, last)))
    assert run("run", "--from", "2026-10-01", "--to", "2026-10-31")[0] == 0
    assert asked == [(date(2026, 10, 1), date(2026, 10, 31))]


def test_a_red_run_ends_with_its_message(run, monkeypatch):
    def fail(first, last):
        raise RunFailed("subscription_daily", "every task green", "check_raw failed", "look")

    monkeypatch.setattr("cleanbill.airflow_runtime.run_daily", fail)
    code, _, error = run("run", "--from", "2026-10-01", "--to", "2026-10-31")
    assert code == 1
    assert "check_raw failed" in error


def test_the_quarantine_is_listed_and_replayed(run, tmp_path):
    files = put_sample(tmp_path / "files", "platform-a")
    mapping = tmp_path / "a.yml"
    right = (BUILT_IN / "platform-a.yml").read_text(encoding="utf-8")
    mapping.write_text(right.replace('"3": resume, ', ""), encoding="utf-8")
    assert run("quarantine", "list")[1] == "nothing is kept out\n"
    code, out, _ = run("land", str(mapping), str(files))
    assert code == 0 and "1 rows bad_code action, first in line 8" in out
    code, out, _ = run("quarantine", "list", "--reason", "bad_code", "--from", "2026-11-01", "--to", "2026-11-01")
    assert code == 0 and "ordersync_20261101.txt" in out and "13800000000" not in out
    assert "rows in all: 1 bad_code at landing" in out
    mapping.write_text(right, encoding="utf-8")
    code, out, _ = run("quarantine", "replay", "--reason", "bad_code")
    assert code == 0 and "1 deliveries written" in out and "next: cleanbill run" in out
    assert run("quarantine", "list")[1] == "nothing is kept out\n"
    mapping.write_text(right.replace('"3": resume, ', ""), encoding="utf-8")
    run("land", str(mapping), str(files), "--replace")
    mapping.unlink()
    assert run("quarantine", "replay", "--reason", "bad_code")[0] == 1


def bill_without_airflow(month: date, auto_approve: bool) -> None:
    if billing_feed.prepare_month(month).is_unchanged:
        return
    billing_feed.draft_feed(month)
    if auto_approve:
        billing_feed.approve_feed(month, None, auto=True)
        billing_feed.seal_feed(month)


def test_a_bill_waits_for_a_second_person(run, monkeypatch):
    monkeypatch.setattr("cleanbill.airflow_runtime.bill_month", bill_without_airflow)
    make_warehouse()
    code, out, _ = run("bill", "2026-11")
    assert code == 0
    assert "nothing is exported yet" in out
    assert "cleanbill bill 2026-11 --approver NAME" in out
    assert not billing_feed.sealed_folder(MONTH).exists()
    assert "draft" in run("status")[1]
    code, out, _ = run("bill", "2026-11", "--approver", "Han Meimei")
    assert (code, out) == (0, f"sealed: {billing_feed.sealed_folder(MONTH)}\n")
    assert "Han Meimei" in (billing_feed.sealed_folder(MONTH) / "approval.json").read_text()
    code, out, _ = run("bill", "2026-11")
    assert (code, out) == (0, f"unchanged, sealed already: {billing_feed.sealed_folder(MONTH)}\n")
    code, _, error = run("bill", "2026-11", "--approver", "Han Meimei")
    assert code == 1
    assert "version 1, which never changes" in error


def test_an_unattended_bill_is_sealed(run, monkeypatch):
    monkeypatch.setattr("cleanbill.airflow_runtime.bill_month", bill_without_airflow)
    make_warehouse()
    assert run("bill", "2026-11", "--auto-approve")[1] == f"sealed: {billing_feed.sealed_folder(MONTH)}\n"
    assert "sealed v1" in run("status")[1]


def test_answers_are_inert_on_a_terminal_and_in_a_spreadsheet(run, published):
    code, out, _ = run("query", "select * from t")
    assert code == 0
    assert "[red]x" in out
    assert "1 row" in out
    code, out, _ = run("query", "select * from t", "--csv")
    assert out.splitlines() == ["formula,markup,number", "'=1+1,[red]x,1000"]


@pytest.mark.parametrize("trigger", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1"])
def test_every_formula_trigger_is_neutralised(trigger):
    target = io.StringIO()
    write_csv(QueryResult(columns=["x", "y"], rows=[(trigger, -1)], is_cut=False), target)
    assert list(csv.reader(io.StringIO(target.getvalue(), newline="")))[1] == ["'" + trigger, "-1"]


def test_rows_beyond_the_limit_are_said(run, published):
    assert "more were left out" in run("query", "select * from range(10)", "--max-rows", "9")[1]
    assert "more were left out" not in run("query", "select * from range(10)", "--max-rows", "10")[1]


def test_status_of_an_empty_data_root(run):
    code, out, _ = run("status")
    assert code == 0
    assert "nothing was taken in yet" in out
    assert "nothing is published yet" in out


def test_nothing_heavy_is_imported_for_help():
    heavy = "airflow", "dbt", "great_expectations", "pandas", "sqlglot"
    text = f"import sys, cleanbill.cli; print([name for name in {heavy} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"


def test_the_installed_command_answers():
    script = Path(sys.executable).with_name("cleanbill")
    finished = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert finished.stdout.startswith("cleanbill 0.")


@pytest.mark.parametrize(
    "command", ["simulate", "land", "run", "bill", "query", "explain", "status", "demo", "export-legacy", "quarantine"]
)
def test_every_command_explains_itself(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Usage: cleanbill" in out


def test_the_demo_takes_a_public_key_only_when_there_is_none(monkeypatch, capsys, cleanbill_home):
    own = demo._with_key().pseudonym_key_bytes()
    assert own != demo.DEMO_KEY.encode()
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", "")
    get_settings.cache_clear()
    assert demo._with_key().pseudonym_key_bytes() == demo.DEMO_KEY.encode()
    assert "public" in capsys.readouterr().out
