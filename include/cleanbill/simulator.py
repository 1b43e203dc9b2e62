"""Makes the deliveries of a plausible operator, and the truth about them.

A world follows from its parameters and the seed, byte for byte: every draw is a hash of (seed, what is drawn, for
whom), taken in DuckDB (`simulation_sql/`), so neither threads nor row order matter and millions of rows take seconds.

What is abnormal or silent is decided first and the records of use are emitted accordingly; the truth files come
from that plan, never from the records. Everybody else is given clear use, so the marts must find exactly the truth.
"""

import csv
import gzip
import hashlib
import io
import json
import tempfile
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import duckdb

from cleanbill.contract import CONTRACTS, SCHEMA_VERSION
from cleanbill.errors import InputFileError, SettingsError

SQL_FOLDER = Path(__file__).parent / "simulation_sql"
HEADQUARTERS = "hq"
PROVINCES = ("gd", "bj", "sh", "zj", "sc", "hb", "ln", "sn")
EPOCH = date(1970, 1, 1)
DIALECTS = 3  # ways of writing times and numbers, given to the provinces in turn
GZIP_LEVEL = 4
LONGEST_PERIOD_DAYS = 800

# Extract, the table of its lines; every province sends these, each day.
PROVINCE_EXTRACTS = {
    "relation_events": "event_line",
    "sms_usage": "message_line",
    "wap_usage": "access_line",
    "gprs_usage": "traffic_line",
}
# The column whose sum the manifest states.
TOTALLED = {"sms_usage": "message_count", "wap_usage": "hits", "gprs_usage": "up_bytes"}
HEADQUARTERS_EXTRACTS = (
    "line_status",
    "refunds",
    "service_catalogue",
    "service_providers",
    "sp_penalties",
    "sp_reports",
)

TRUTH_QUERIES = {
    "anomalies": """
        select
            anomaly_type, anomaly.msisdn, anomaly.sp_code, anomaly.service_code,
            as_time(anomaly.ordered_s) as ordered_at, as_day(day_of(anomaly.ordered_s)) as observed_from,
            as_day(anomaly.detected_day) as detected_on,
            as_day(day_of(resolved_s)) as resolved_on,
            case
                when report.reported_s is not null and manner = 'late' then 'reported_late'
                when report.reported_s is not null then 'reported'
                when anomaly.detected_day + 21 <= getvariable('last_day') then 'unreported'
                when anomaly.detected_day + 2 >= getvariable('last_day') then 'pending'
            end as report_status,
            as_time(report.reported_s) as reported_at
        from true_anomaly anomaly
        join true_report report on report.spell_no = anomaly.spell_no
        order by all
    """,
    "silences": """
        select
            billing_month, spell.msisdn, spell.sp_code, spell.service_code, spell.service_class,
            as_time(ordered_s) as ordered_at, window_start, mt_count, wap_hits
        from true_silence join spell using (spell_no)
        order by all
    """,
    "event_findings": """
        select
            event_id, msisdn, sp_code, service_code, action, as_time(event_s) as event_time,
            as_day(day) as business_date, source.source, reason
        from (
            select *, finding as reason from act where finding is not null
            union all
            -- Anything on a service after it left the catalogue.
            select *, 'unknown_service' from act where day_of(event_s) >= withdraw_day and not is_repeat
        ) found join source on source.source_no = found.home_no
        order by all
    """,
    "planted_spells": """
        select
            role, kind, msisdn, sp_code, service_code, as_time(ordered_s) as ordered_at, as_time(ended_s) as ended_at,
            end_reason, as_time(first_use_s) as first_use_at, as_time(first_traffic_s) as first_traffic_at
        from spell where role not in ('regular', 'none') or kind not in ('regular', 'burst')
        order by all
    """,
    "bursts": """
        select service.sp_code, service.service_code, as_day(burst.day) as day, count(spell.spell_no) as orders
        from burst join service using (service_no)
             left join spell on spell.service_no = burst.service_no and spell.is_burst and day_of(ordered_s) = burst.day
        group by all order by all
    """,
    "malformed_records": """
        select extract, as_day(day) as business_date, source, kind
        from malformed join source using (source_no) order by all
    """,
    # Everything lies in landing/; whoever plays the days one by one holds these back until they arrive.
    "arrivals": """
        select extract, as_day(day) as business_date, source, delivery, as_day(arrival_day) as arrives_on
        from arrival order by all
    """,
}


@dataclass(frozen=True)
class PlantedRules:
    """The numbers the truth is planted against; a test holds them to be those of the policy seeds.

    Attributes:
        tenure_days: days without use (or traffic) before a spell is abnormal.
        silent_messages: MT of a month at or below which a spell is silent.
        silent_months: months without access after which a browsing spell is silent.
    """

    tenure_days: int = 30
    silent_messages: int = 3
    silent_months: int = 4


@dataclass(frozen=True)
class Habits:
    """How the simulated operator behaves; shares of a plausible operator, no rule of the business.

    Attributes:
        stock_days: in how many first days the stock of relations that was there before is told as orders.
        stock_percent: share of the relations that belong to it.
        paused_permille: share of the spells that are suspended once.
        records_per_month: everyday records of use per spell and month are 3 to this plus 2.
        doubled_per_100000: share of usage lines a switch sends twice.
        malformed_from_lines: deliveries at least this long may hold one broken record.
    """

    stock_days: int = 10
    stock_percent: int = 40
    paused_permille: int = 40
    records_per_month: int = 9
    doubled_per_100000: int = 15
    malformed_from_lines: int = 300


# Kind of subscriber: (share in per mille, at least so many).
KIND_SHARES = {
    "dark": (12, 8),  # no CMWAP traffic, or only from some day on
    "stopped": (9, 9),  # the line is stopped for a while
    "closed": (5, 4),  # the line is closed, the relations stay
    "leaver": (15, 6),  # cancels everything of an SP at once
    "pauser": (6, 5),  # suspends everything of an SP at once
    "burst": (20, 12),  # orders in one of the bursts
    "test": (0, 0),  # the operator's own numbers, as many as asked for
}


@dataclass(frozen=True)
class World:
    """Everything a simulated world follows from.

    Attributes:
        first_day: first business date.
        last_day: last business date.
        subscribers: how many phone numbers.
        provinces: source names of events and usage.
        seed: another seed, another world.
        test_numbers: how many subscribers are the operator's own test numbers.
        resent_permille: share of a province's deliveries that a second one replaces.
        malformed_percent: share of the larger deliveries that hold one broken record.
    """

    first_day: date
    last_day: date
    subscribers: int
    provinces: tuple[str, ...]
    seed: int
    test_numbers: int = 0
    resent_permille: int = 8
    malformed_percent: int = 25

    @property
    def days(self) -> int:
        return (self.last_day - self.first_day).days + 1


@dataclass(frozen=True)
class SimulationSummary:
    """What was written.

    Attributes:
        landing: folder of the deliveries.
        truth: folder of the ground truth (holds true numbers).
        first_day: first business date.
        last_day: last business date.
        deliveries: manifests written.
        files: data files written.
        rows: data lines per extract, over all deliveries.
        planted: rows per truth file.
        unchanged: the same world was there already and nothing was written.
    """

    landing: Path
    truth: Path
    first_day: date
    last_day: date
    deliveries: int
    files: int
    rows: dict[str, int]
    planted: dict[str, int]
    unchanged: bool = False


def simulate(
    home: Path,
    start: date,
    months: int | None = None,
    *,
    end: date | None = None,
    subscribers: int = 24_000,
    provinces: list[str] | tuple[str, ...] | int = 3,
    seed: int = 1,
    test_numbers: int = 0,
    resent_permille: int = 8,
    malformed_percent: int = 25,
    threads: int = 2,
    progress: Callable[[str], None] | None = None,
) -> SimulationSummary:
    """Write a simulated operator's deliveries to `home/landing` and its truth to `home/truth`.

    Args:
        home: data root.
        start: first business date.
        months: length of the period in months; the last day is the one before the same day of that month
            (or that month's end, if it has no such day).
        end: last business date, instead of `months`.
        subscribers: how many phone numbers; each has about 55 records of use in seven months.
        provinces: source names of events and usage, or how many.
        seed: another seed, another world.
        test_numbers: how many subscribers are test numbers (written to `test_numbers.csv`).
        resent_permille: share of the provinces' deliveries that a second one replaces.
        malformed_percent: share of the larger deliveries that hold one broken record.
        threads: DuckDB threads; the bytes do not depend on it.
        progress: called with one line before each stage.

    Returns:
        What was written; `unchanged` if the same world is there already.

    Raises:
        SettingsError: a parameter makes no world.
        InputFileError: `home/landing` holds other deliveries.
    """
    names = PROVINCES[:provinces] if isinstance(provinces, int) else tuple(provinces)
    world = World(
        first_day=start,
        last_day=_last_day(start, months, end),
        subscribers=subscribers,
        provinces=names,
        seed=seed,
        test_numbers=test_numbers,
        resent_permille=resent_permille,
        malformed_percent=malformed_percent,
    )
    _check(world, provinces)
    stamp = {**asdict(world), "generator": _generator_digest()}
    stamp_path = home / "truth" / "world.json"
    found = _finished(home, stamp, stamp_path)
    if found is not None:
        return found
    say = progress or (lambda line: None)
    stamp_path.parent.mkdir(parents=True, exist_ok=True)
    _write_by_rename(stamp_path, json.dumps(stamp, indent=2, default=str) + "\n")
    with tempfile.TemporaryDirectory(prefix="cleanbill-simulator-") as spill:
        connection = duckdb.connect(
            config={"threads": threads, "temp_directory": spill, "autoinstall_known_extensions": False}
        )
        try:
            _make(connection, world, say)
            say("writing deliveries")
            deliveries, files, rows = _write_deliveries(connection, world, home / "landing")
            say("writing truth")
            planted = _write_truth(connection, home / "truth")
            _write_reference_files(connection, world, home)
        finally:
            connection.close()
    counts = {"deliveries": deliveries, "files": files, "rows": rows, "planted": planted}
    _write_by_rename(stamp_path, json.dumps({**stamp, **counts}, indent=2, default=str) + "\n")
    return _summary(home, world, counts)


def _last_day(start: date, months: int | None, end: date | None) -> date:
    if (months is None) == (end is None):
        raise SettingsError(
            where="simulated period",
            expected="either a number of months or a last day",
            found="both" if months is not None else "neither",
            advice="give one of them",
        )
    if end is not None:
        return end
    index = start.year * 12 + start.month - 1 + months
    year, month = index // 12, index % 12 + 1
    length = monthrange(year, month)[1]
    if start.day > length:
        return date(year, month, length)
    return date(year, month, start.day) - timedelta(days=1)


def _check(world: World, provinces: object) -> None:
    problems = {
        "simulated period": (f"1 to {LONGEST_PERIOD_DAYS} days", 1 <= world.days <= LONGEST_PERIOD_DAYS, world.days),
        "subscribers": ("100 to 5,000,000", 100 <= world.subscribers <= 5_000_000, world.subscribers),
        "test numbers": (
            "0 to a tenth of the subscribers",
            0 <= world.test_numbers <= world.subscribers // 10,
            world.test_numbers,
        ),
        "resent deliveries": ("0 to 1000 per mille", 0 <= world.resent_permille <= 1000, world.resent_permille),
        "malformed records": ("0 to 100 percent", 0 <= world.malformed_percent <= 100, world.malformed_percent),
        "provinces": (
            f"1 to {len(PROVINCES)}, or different lower-case names, none of them {HEADQUARTERS!r}",
            len(set(world.provinces)) == len(world.provinces) > 0
            and HEADQUARTERS not in world.provinces
            and all(name.isalnum() and name.isascii() and name == name.lower() for name in world.provinces)
            and (not isinstance(provinces, int) or 1 <= provinces <= len(PROVINCES)),
            provinces,
        ),
    }
    for where, (expected, fits, found) in problems.items():
        if not fits:
            raise SettingsError(where=where, expected=expected, found=repr(found)[:80], advice="choose another value")


def _generator_digest() -> str:
    """Return what tells one version of the generator from another."""
    digest = hashlib.sha256()
    for path in (Path(__file__), *sorted(SQL_FOLDER.glob("*.sql"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _finished(home: Path, stamp: dict[str, object], stamp_path: Path) -> SimulationSummary | None:
    """Return the summary if this very world was written before; refuse to mix it with anything else."""
    landing = home / "landing"
    if not landing.is_dir() or not any(landing.iterdir()):
        return None
    wanted = json.loads(json.dumps(stamp, default=str))
    found: dict = json.loads(stamp_path.read_text(encoding="utf-8")) if stamp_path.is_file() else {}
    if {name: found.get(name) for name in wanted} == wanted and "deliveries" in found:
        world = _world_of(stamp)
        return replace(_summary(home, world, found), unchanged=True)
    if found and {name: found.get(name) for name in wanted} == wanted:
        return None  # begun and not finished: the same files are written again
    raise InputFileError(
        where=str(landing),
        expected="no deliveries, or those of the same simulated world",
        found="other deliveries",
        advice="choose another CLEANBILL_HOME, or move the deliveries away",
    )


def _world_of(stamp: dict[str, object]) -> World:
    return World(**{name: value for name, value in stamp.items() if name != "generator"})  # type: ignore[arg-type]


def _summary(home: Path, world: World, counts: dict) -> SimulationSummary:
    return SimulationSummary(
        landing=home / "landing",
        truth=home / "truth",
        first_day=world.first_day,
        last_day=world.last_day,
        **{name: counts[name] for name in ("deliveries", "files", "rows", "planted")},
    )


def _make(connection: duckdb.DuckDBPyConnection, world: World, say: Callable[[str], None]) -> None:
    """Decide who does what, and turn it into the lines of every delivery."""
    first, last = ((day - EPOCH).days for day in (world.first_day, world.last_day))
    variables = {
        "seed": world.seed,
        "first_day": first,
        "last_day": last,
        "days": world.days,
        "months": world.days // 28 + 1,
        "first_s": first * 86400,
        "end_s": (last + 1) * 86400,
        "subscribers": world.subscribers,
        "sources": len(world.provinces),
        "resent_permille": world.resent_permille,
        "malformed_percent": world.malformed_percent,
        **asdict(PlantedRules()),
        **asdict(Habits()),
    }
    for name, value in variables.items():
        connection.execute(f"set variable {name} = $value::bigint", {"value": value})
    connection.execute("create table source (source_no bigint, source varchar, dialect bigint)")
    connection.executemany(
        "insert into source values (?, ?, ?)",
        [(number, name, number % DIALECTS) for number, name in enumerate(world.provinces)],
    )
    connection.execute("create table kind_cut (kind varchar, from_place bigint, to_place bigint)")
    connection.executemany("insert into kind_cut values (?, ?, ?)", list(_kind_cuts(world)))
    for path in sorted(SQL_FOLDER.glob("*.sql")):
        say(path.stem[3:].replace("_", " "))
        connection.execute(path.read_text(encoding="utf-8"))


def _kind_cuts(world: World) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, first place, place behind the last) along the shuffled subscribers."""
    place = 0
    for kind, (permille, at_least) in KIND_SHARES.items():
        members = world.test_numbers if kind == "test" else max(at_least, world.subscribers * permille // 1000)
        yield kind, place, place + members
        place += members


@dataclass(frozen=True)
class _Part:
    """One data file of a delivery, as text."""

    extract: str
    day: date
    source: str
    delivery: int
    part: int | None
    rows: int
    text: str
    total: int | None
    is_plain: bool = False

    @property
    def stem(self) -> str:
        number = f"_d{self.delivery}" if self.delivery > 1 else ""
        return f"{self.extract}_{self.day:%Y%m%d}_{self.source}{number}"


def _write_deliveries(
    connection: duckdb.DuckDBPyConnection, world: World, landing: Path
) -> tuple[int, int, dict[str, int]]:
    """Write data files, then the manifest of each delivery; return (deliveries, files, rows per extract)."""
    files, deliveries, rows = 0, 0, {}
    with ThreadPoolExecutor(max_workers=2) as pool:
        for extract in (*PROVINCE_EXTRACTS, *HEADQUARTERS_EXTRACTS):
            for offset in range(world.days):
                (landing / extract / f"{world.first_day + timedelta(days=offset)}").mkdir(parents=True, exist_ok=True)
            written = pool.map(lambda parts: _write_delivery(landing, parts), _by_delivery(connection, extract, world))
            rows[extract] = 0
            for parts in written:
                deliveries += 1
                files += len(parts)
                rows[extract] += sum(parts)
    return deliveries, files, rows


def _by_delivery(connection: duckdb.DuckDBPyConnection, extract: str, world: World) -> Iterator[list[_Part]]:
    """Yield the parts of one delivery after the other, a month at a time to bound memory."""
    if extract in PROVINCE_EXTRACTS:
        query = (SQL_FOLDER / "deliver" / "province.sql").read_text(encoding="utf-8")
        query = query.replace("delivered_line", PROVINCE_EXTRACTS[extract])
    else:
        query = (SQL_FOLDER / "deliver" / "headquarters.sql").read_text(encoding="utf-8")
    day = world.first_day
    while day <= world.last_day:
        next_month = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
        through = min(next_month - timedelta(days=1), world.last_day)
        rows = connection.execute(
            query, {"extract": extract, "from": (day - EPOCH).days, "through": (through - EPOCH).days}
        ).fetchall()
        parts: list[_Part] = []
        for row_day, source, delivery, part, lines, text, total in rows:
            one = _Part(
                extract=extract,
                day=EPOCH + timedelta(days=row_day),
                source=source or HEADQUARTERS,
                delivery=delivery,
                part=part,
                rows=lines,
                text=text or "",
                total=total,
                is_plain=source is None,
            )
            if parts and parts[0].stem != one.stem:
                yield parts
                parts = []
            parts.append(one)
        if parts:
            yield parts
        day = next_month


def _write_delivery(landing: Path, parts: list[_Part]) -> list[int]:
    """Write one delivery, its manifest last; return the rows of each file."""
    head = parts[0]
    folder = landing / head.extract / f"{head.day}"
    header = ",".join(column.name for column in CONTRACTS[head.extract].columns)
    entries = []
    for part in parts:
        number = f"_{part.part:03d}" if len(parts) > 1 else ""
        name = f"{part.stem}{number}.csv" + ("" if part.is_plain else ".gz")
        content = f"{header}\n{part.text}".encode()
        if not part.is_plain:
            content = _gzipped(content)
        (folder / name).write_bytes(content)
        entries.append(
            {"name": name, "rows": part.rows, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        )
    manifest = {
        "extract": head.extract,
        "business_date": f"{head.day}",
        "source": head.source,
        "delivery": head.delivery,
        "schema_version": SCHEMA_VERSION,
        "files": entries,
    }
    # A broken record has no number to add: such a delivery states no total.
    totals = [part.total for part in parts]
    if head.extract in TOTALLED and None not in totals:
        manifest["totals"] = {TOTALLED[head.extract]: sum(total for total in totals if total is not None)}
    _write_by_rename(folder / f"{head.stem}.manifest.json", json.dumps(manifest) + "\n")
    return [part.rows for part in parts]


def _gzipped(content: bytes) -> bytes:
    """Compress without name and time stamp, so that equal content is equal bytes on every Python."""
    target = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=target, mtime=0) as stream:
        stream.write(content)
    return target.getvalue()


def _write_truth(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, int]:
    """Write one CSV per kind of truth; return the rows of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, query in TRUTH_QUERIES.items():
        result = connection.execute(query)
        header = [column[0] for column in result.description]
        content = result.fetchall()
        _write_by_rename(folder / f"{name}.csv", _csv(header, content))
        rows[name] = len(content)
    return rows


def _write_reference_files(connection: duckdb.DuckDBPyConnection, world: World, home: Path) -> None:
    """Write which deliveries are to be expected, and the test numbers if there are any."""
    pairs = [(extract, source) for extract in PROVINCE_EXTRACTS for source in world.provinces]
    pairs += [(extract, HEADQUARTERS) for extract in HEADQUARTERS_EXTRACTS]
    _write_by_rename(
        home / "expected_extracts.csv",
        _csv(
            ["extract", "source", "schedule", "valid_from", "valid_to"],
            [(extract, source, "daily", world.first_day, None) for extract, source in sorted(pairs)],
        ),
    )
    if world.test_numbers:
        numbers = connection.execute(
            "select msisdn, as_day(getvariable('first_day')), null from subscriber where kind = 'test' order by msisdn"
        ).fetchall()
        _write_by_rename(home / "test_numbers.csv", _csv(["msisdn", "valid_from", "valid_to"], numbers))


def _csv(header: list[str], rows: Iterable[tuple]) -> str:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return target.getvalue()


def _write_by_rename(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)
