"""The pages of the gate report: complete, inert, without a number, of bounded cost."""

import json
import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cleanbill import gate_report, gates
from cleanbill.control import open_warehouse
from cleanbill.errors import GateFailed
from cleanbill.gate_report import folder_name, write_pages
from cleanbill.settings import REPOSITORY, Settings, get_settings
from cleanbill.suites import STAGES, load_suite, suite_paths

from tests.gate_warehouse import write_good_feed, write_good_warehouse

MSISDN = "13812345678"
HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><script src='//evil.example/x.js'></script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "<svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "<!--", "]]>", "\u202egnp.exe", "nul\x00\x1b[31m", "&lt;script&gt;",
]  # fmt: skip
VOID = {"meta", "br", "circle", "polyline"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, attributes and text; raises if tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open[-1] in {"tr", "td", "th", "p"} and self._open[-1] != tag:
            self._open.pop()
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def assert_inert(page: Page) -> None:
    """No script, no frame, no handler, nothing fetched, no address but a relative one."""
    policies = [value["content"] for tag, value in page.elements if value.get("http-equiv")]
    assert policies == [gate_report.CONTENT_SECURITY_POLICY]
    assert "default-src 'none'" in policies[0]
    allowed = set("html head meta title style body p a h1 h2 h3 span b br div table tr th td svg".split())  # noqa: SIM905
    allowed |= {"polyline", "circle"}
    for tag, attributes in page.elements:
        assert tag in allowed, tag
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "style", "srcset"}]
        assert re.fullmatch(r"\.{1,2}/[\w%./-]+", attributes.get("href", "./x")), attributes


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("good")
    warehouse, feed = folder / "cleanbill.duckdb", folder / "feed.duckdb"
    write_good_warehouse(warehouse)
    write_good_feed(warehouse, feed)
    return warehouse, feed


@pytest.fixture
def settings(cleanbill_home: Path, good_files: tuple[Path, Path]) -> Iterator[Settings]:
    """The good warehouse and feed under the real suites."""
    found = get_settings()
    found.warehouse_folder.mkdir(parents=True)
    shutil.copyfile(good_files[0], found.warehouse)
    shutil.copyfile(good_files[1], found.warehouse_folder / "feed.duckdb")
    yield found


def spoil(settings: Settings, *statements: str) -> None:
    with duckdb.connect(str(settings.warehouse)) as connection:
        for statement in statements:
            connection.execute(statement)


def page_of(settings: Settings, run_id: str) -> Page:
    return Page((settings.reports / "gates" / folder_name(run_id) / "index.html").read_text(encoding="utf-8"))


def list_of(settings: Settings) -> Page:
    return Page((settings.reports / "gates" / "index.html").read_text(encoding="utf-8"))


def test_a_green_run_shows_every_suite_and_expectation_with_its_verdict(settings: Settings) -> None:
    feed = settings.warehouse_folder / "feed.duckdb"
    reports = [gates.check(stage, "run-1", feed if stage == "export" else None) for stage in STAGES]
    warnings = [warning for report in reports for warning in report.warnings]
    page = page_of(settings, "run-1")
    assert_inert(page)
    written = [load_suite(path, stage) for stage in STAGES for path in suite_paths(REPOSITORY / "expectations", stage)]
    for suite in written:
        assert suite.qualified_table in page.words
        for expectation in suite.expectations:
            assert " ".join(expectation.description.split()) in page.words
    tags = [value for tag, value in page.elements if tag == "span" and value.get("class") == "tag green"]
    assert len(tags) == sum(len(suite.expectations) for suite in written) - len(warnings) + len(STAGES) + 1
    for warning in warnings:
        assert f"warning {warning.expectation}" in page.words
    assert not re.search(r"(?<![0-9a-f])1\d{10}(?![0-9a-f])", page.words)
    assert "run-1" in list_of(settings).words
    assert ("a", {"href": "./run-1/index.html"}) in list_of(settings).elements


def test_a_red_gate_writes_its_page_and_names_it(settings: Settings) -> None:
    gates.check("raw", "run-2")
    spoil(settings, "update staging.stg_relation_events set action = 'replace' where event_id = 'e1'")
    with pytest.raises(GateFailed, match=r"reports/gates/run-2/index\.html"):
        gates.check("staging", "run-2")
    page = page_of(settings, "run-2")
    assert_inert(page)
    for words in (
        "RED stopped at staging",
        "a replacement names the service it replaces",
        "What to do:",
        "e1",
        "not run",
    ):
        assert words in page.words
    assert "RED" in list_of(settings).words


def test_waivers_deliveries_and_refusals_are_on_the_page(settings: Settings) -> None:
    spoil(
        settings,
        "insert into control.waivers values "
        "('sms_usage', 'gd', '2026-08-09', 'lost in a fire', 'A. One', 'B. Two', '2999-01-01'), "
        "('wap_usage', 'gd', '2026-08-10', 'old', 'A. One', 'B. Two', '2020-01-01')",
        "insert into control.withdrawals values ('sms_usage', 'bj', '2026-08-11', 7, 'of another month', 'C', 'D')",
    )
    gates.check("raw", "run")
    words = page_of(settings, "run").words
    assert "sms_usage gd 2026-08-09 lost in a fire A. One B. Two 2999-01-01 in effect" in words
    assert "Every expectation holds." in words
    assert "sms_usage 2026-08-11 bj 7 of another month C D" in words
    assert "wap_usage gd 2026-08-10 old A. One B. Two 2020-01-01 expired" in words
    with open_warehouse(settings, read_only=True) as connection:
        loaded = connection.execute("select sum(rows_loaded) from control.in_force where extract='refunds'").fetchone()[
            0
        ]
    assert re.search(rf"refunds \d+ 2026-\d\d-\d\d 2026-\d\d-\d\d [\d,]+ {loaded:,} ", words)


def test_what_comes_from_outside_is_text_and_nothing_else(settings: Settings) -> None:
    texts = [*HOSTILE, "x" * 1_000_000, f"call {MSISDN} or 86{MSISDN}"]
    with duckdb.connect(str(settings.warehouse)) as connection:
        for text in texts:
            connection.execute(
                "insert into control.waivers values ('refunds', $text, '2026-08-09', $text, $text, $text, '2999-1-1')",
                {"text": text},
            )
        connection.execute(
            "update control.deliveries set reason = $text where status <> 'accepted'", {"text": texts[0]}
        )
        connection.execute("update staging.stg_service_providers set status = $text", {"text": texts[1]})
    with pytest.raises(GateFailed):
        gates.check("staging", "run")
    folder = settings.reports / "gates" / "run"
    assert_inert(page_of(settings, "run"))

    # Everything a gate writes about what it found, in every field of its report.
    report = json.loads((folder / "staging.json").read_text(encoding="utf-8"))
    for text, result in zip(texts, report["results"], strict=False):
        result |= {"success": False, "observed": text, "advice": text, "expected": text, "examples": [{text: text}]}
        result |= {"suite": text, "table": text, "expectation": text}
    (folder / "staging.json").write_text(json.dumps(report), encoding="utf-8")
    with open_warehouse(settings) as connection:
        write_pages(folder, "<b>run", connection, settings)
    written = (folder / "index.html").read_text(encoding="utf-8")
    page = Page(written)
    assert_inert(page)
    assert len(written) < 250_000
    assert MSISDN not in written
    for shown in (HOSTILE[0], HOSTILE[6], "call 138****5678 or 138****5678", "<b>run", "nul\ufffd\ufffd[31m"):
        assert shown in page.words
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", written)


def test_the_trend_shows_the_newest_runs_and_reads_no_more(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_report, "TREND_RUNS", 5)
    monkeypatch.setattr(gate_report, "LISTED_RUNS", 4)
    start = datetime(2026, 1, 1, 4)
    with open_warehouse(settings) as connection:
        for number in range(9):
            at = start + timedelta(days=number)
            connection.execute(
                "insert into control.gate_records values ($run, 'raw', $ok, 0, 0, null, $at)",
                {"run": f"r{number}", "ok": number != 6, "at": at},
            )
            connection.execute(
                "insert into control.gate_results values ($run, 'raw', 's', 'e', 'critical', $ok, "
                "$observed, 'none', $rows, 'a', $at)",
                {
                    "run": f"r{number}", "ok": number != 6, "at": at,
                    "observed": f"{number * 10} rows", "rows": None if number % 2 else number * 10,
                },
            )  # fmt: skip
        folder = settings.reports / "gates" / "r8"
        folder.mkdir(parents=True)
        result = {"stage": "raw", "suite": "s", "expectation": "e"}
        stage: dict[str, Any] = {"stage": "raw", "results": [result]}
        gate_report._add_trends(stage, connection)
        trend = result["trend"]
        assert trend.words == "5 runs: 40 to 80, now 80"
        assert trend.points == "0.0,16.0 24.0,12.5 48.0,9.0 72.0,5.5 96.0,2.0"
        assert trend.failures == ((48.0, 9.0),)
        write_pages(folder, "r8", connection, settings)
    listed = list_of(settings)
    assert re.findall(r"\br\d\b", listed.words) == ["r8", "r7", "r6", "r5"]
    links = [value["href"] for tag, value in listed.elements if tag == "a"]
    assert links == ["./r8/index.html"]  # the pages of the others are gone


@pytest.mark.parametrize(
    ("values", "line"), [([], None), ([3], None), ([None, 3], None), ([3, 3], "0.0,16.0 96.0,16.0")]
)
def test_a_line_needs_two_values(values: list[int | None], line: str | None) -> None:
    trend = gate_report._trend(values, [True] * len(values))
    assert (trend.points if trend else None) == line


def test_a_page_that_cannot_be_written_does_not_hide_the_verdict(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(gate_report, "write_pages", fail)
    with pytest.raises(OSError, match="disk full"):
        gates.check("raw", "run")
    spoil(settings, "update control.deliveries set rows_in = -1 where status = 'accepted'")
    with pytest.raises(GateFailed):
        gates.check("raw", "run")


def test_readers_see_the_old_page_or_the_new_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    gates.check("raw", "run")
    page = settings.reports / "gates" / "run" / "index.html"
    before = page.read_text(encoding="utf-8")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("stopped before the rename")))
    with open_warehouse(settings) as connection, pytest.raises(OSError, match="stopped"):
        write_pages(page.parent, "run", connection, settings)
    assert page.read_text(encoding="utf-8") == before
