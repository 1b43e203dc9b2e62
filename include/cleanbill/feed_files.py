"""Write and verify the files of one version of a billing feed (4-billing-feed.md).

Everything but approval.json is a pure function of the frozen month: sorted rows, `\\n` line ends, gzip without time
or name, integer money, no clock. Fields are validated by strict patterns; a row that offends is refused, never altered.
"""

import hashlib
import hmac
import itertools
import json
import os
import zlib
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb

from cleanbill import __version__
from cleanbill.errors import FeedError
from cleanbill.masking import mask_msisdn, mask_text
from cleanbill.settings import Settings

MANIFEST = "manifest.json"
APPROVAL = "approval.json"
SUCCESS = "_SUCCESS"
FILE_FIELDS = frozenset({"name", "rows", "bytes", "sha256", "fee_li"})
APPROVAL_FIELDS = frozenset({"approved_at", "approved_by", "is_automatic", "manifest_sha256", "note", "version"})

# In the order of their priority (3-marts.md); the manifest names all of them, also those that do not occur.
DISPOSITIONS = (
    "unknown_service",
    "free_service",
    "test",
    "suspended",
    "trial",
    "unconsented",
    "line_stopped",
    "sp_suspended",
    "abnormal",
    "silent",
    "billed",
)

# Why a line changed: what it is now. Beside these the disposition it has now, if it is live and not charged any more.
CHARGED_NOW = "charged_now"  # not charged by the sum of the versions before
FEE_CHANGED = "fee_changed"  # charged before and now, another amount
NOT_LIVE = "not_live"  # the order is known, but does not live at M-01 00:00
NO_SUCH_ORDER = "no_such_order"  # no delivery in force names the order any more
ADJUSTMENT_REASONS = (
    CHARGED_NOW,
    FEE_CHANGED,
    NOT_LIVE,
    NO_SUCH_ORDER,
    *(code for code in DISPOSITIONS if code != "billed"),
)

MSISDN = "1[0-9]{10}"
OPAQUE_ID = "[0-9A-Za-z][0-9A-Za-z._:-]{0,63}"
SP_CODE = "[0-9]{6}"
SERVICE_CODE = "[0-9A-Za-z][0-9A-Za-z._-]{0,9}"
PSEUDONYM = "[0-9a-f]{32}"
FIXED_CODE = "[a-z][a-z0-9_]{0,39}"
NAME = "[0-9A-Za-z][0-9A-Za-z._-]{0,63}"
SHA256 = "[0-9a-f]{64}"
NOT_NEGATIVE = "0|[1-9][0-9]{0,18}"
INTEGER = "-?(0|[1-9][0-9]{0,18})"
POSITIVE = "[1-9][0-9]{0,8}"
DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"

CHARGE_COLUMNS = ("msisdn", "sp_code", "service_code", "subscription_id", "billing_month", "fee_li", "charge_time")
ADJUSTMENT_COLUMNS = (*CHARGE_COLUMNS, "previous_li", "new_li", "delta_li", "reason")
EXCLUSION_COLUMNS = (*CHARGE_COLUMNS[:-1], "disposition", "reason")
SETTLEMENT_AMOUNTS = (
    "gross_li",
    "errors_li",
    "audited_li",
    "stopped_li",
    "closed_li",
    "abnormal_li",
    "silent_li",
    "price_per_message_li",
    "refunds_li",
    "penalties_li",
    "double_refunds_li",
    "other_li",
    "to_settle_li",
    "operator_share_li",
    "sp_share_li",
)
SETTLEMENT_COLUMNS = ("sp_code", "billing_month", *SETTLEMENT_AMOUNTS, "status", "hold_reason")
INPUT_COLUMNS = ("extract", "date", "source", "delivery", "sha256")

# How the values of a column are written; all others are written as their text.
WRITTEN_AS = {
    "billing_month": "strftime({column}, '%Y-%m-%d')",
    "charge_time": "strftime({column}, '%Y-%m-%d %H:%M:%S')",
    "date": "strftime({column}, '%Y-%m-%d')",
}
LINES_PER_BATCH = 50_000
LONGEST_PROVINCE = 120  # bytes
SAFE_IN_NAMES = "-_.~"
GZIP_WRAPPER = 31  # zlib's window size that asks for a gzip wrapper; it writes no time and no file name
RESTRICTED_FILE = 0o600
NOT_APPROVED = "draft and approve the month again; if it is sealed restore the file from a backup"
DAMAGED = "restore the folder from a backup and find out who changed it; a sealed version is never written again"


@dataclass(frozen=True)
class FeedFile:
    """One file as the manifest names it; `fee_li` is 0 where no fee is listed."""

    name: str
    rows: int
    bytes: int
    sha256: str
    fee_li: int


def field_patterns(month: date, has_opaque_identities: bool) -> dict[str, dict[str, str]]:
    """Return table → column → pattern that every written value of the machine feed must match in full.

    Opaque subscriber ids are allowed only when a delivery declared its source opaque.
    """
    first = f"{month:%Y-%m-%d}"
    charge = {
        "msisdn": f"{MSISDN}|{OPAQUE_ID}" if has_opaque_identities else MSISDN,
        "sp_code": SP_CODE,
        "service_code": SERVICE_CODE,
        "subscription_id": PSEUDONYM,
        "billing_month": first,
        "fee_li": NOT_NEGATIVE,
        "charge_time": f"{first} 00:00:00",
    }
    excluded = {column: charge[column] for column in EXCLUSION_COLUMNS if column in charge}
    return {
        "charges": charge,
        "adjustments": {
            **charge,
            "fee_li": INTEGER,
            "previous_li": NOT_NEGATIVE,
            "new_li": NOT_NEGATIVE,
            "delta_li": INTEGER,
            "reason": "|".join(ADJUSTMENT_REASONS),
        },
        "exclusions": {
            **excluded,
            "disposition": "|".join(code for code in DISPOSITIONS if code != "billed"),
            "reason": FIXED_CODE,
        },
        "settlement": {
            "sp_code": SP_CODE,
            "billing_month": first,
            **dict.fromkeys(SETTLEMENT_AMOUNTS, INTEGER),
            "status": "payable|held",
            "hold_reason": f"({FIXED_CODE})?",
        },
        "inputs": {"extract": FIXED_CODE, "date": DAY, "source": NAME, "delivery": POSITIVE, "sha256": SHA256},
    }


def write_version(
    database: Path, folder: Path, month: date, settings: Settings, base: list[dict[str, Any]] | None = None
) -> None:
    """Write all files of the frozen month's version into the empty `folder`, manifest.json last, and flush them.

    Version 1 holds charges, exclusions and settlement, a later one adjustments only; both the inputs.

    Args:
        database: the frozen month.
        folder: where to write.
        month: first day of M.
        settings: the installation.
        base: version and manifest sha256 of the earlier versions, which a later one adjusts.

    Raises:
        FeedError: a field does not match its pattern; nothing was written then.
    """
    connection = duckdb.connect(
        str(database),
        read_only=True,
        config={
            "threads": settings.threads,
            "memory_limit": settings.memory_limit,
            "autoinstall_known_extensions": False,
            "temp_directory": str(settings.warehouse_folder / "tmp"),
        },
    )
    try:
        version, as_of, inputs_digest, policy_digest, before_data_start, has_opaque = connection.execute(
            "select version, as_of, inputs_digest, policy_digest, before_data_start, has_opaque_identities "
            "from feed_info"
        ).fetchone()
        _require_valid_fields(connection, month, has_opaque)
        if version == 1:
            files = _write_charges(connection, folder, month, settings.feed_rows_per_file)
            files.append(_write_settlement(connection, folder, month))
            files.append(_write_exclusions(connection, folder, month))
        else:
            files = _write_adjustments(connection, folder, month, settings.feed_rows_per_file)
        files.append(_write_inputs(connection, folder))
        manifest = {
            "as_of": f"{as_of:%Y-%m-%d}",
            "before_data_start": before_data_start,
            "billing_month": f"{month:%Y-%m}",
            "code_version": __version__,
            "digests": {"inputs": inputs_digest, "key": key_digest(settings), "policy": policy_digest},
            "dispositions": _sum_dispositions(connection),
            "files": [asdict(file) for file in files],
            "version": version,
            "waivers": _list_waivers(connection),
        }
        if version > 1:
            manifest["adjusts"] = base
    finally:
        connection.close()
    write_text(folder / MANIFEST, as_json(manifest))


def _require_valid_fields(connection: duckdb.DuckDBPyConnection, month: date, has_opaque: bool) -> None:
    for table, patterns in field_patterns(month, has_opaque).items():
        for column, pattern in patterns.items():
            written = _written(column)
            if column == "hold_reason":
                written = f"coalesce({written}, '')"
            offending, example = connection.execute(
                f"""
                select count(*), min(shown)
                from (select {written} as shown from {table}) as written
                where shown is null or not regexp_full_match(shown, $pattern)
                """,  # noqa: S608 - tables and columns are the constants above
                {"pattern": pattern},
            ).fetchone()
            if offending:
                raise FeedError(
                    where=f"billing feed {month:%Y-%m}, {table}.{column}",
                    expected=f"text that matches {pattern}",
                    found=f"{offending} rows that do not, for example {_shown_safely(column, example)}",
                    advice="repair the delivery that brought the value and run its day again; the feed alters nothing",
                )


def _shown_safely(column: str, value: str | None) -> str:
    if value is None:
        return "an empty value"
    return repr(mask_msisdn(value) if column == "msisdn" else mask_text(value[:40]))


def _written(column: str) -> str:
    return WRITTEN_AS.get(column, "cast({column} as varchar)").format(column=column)


def _write_charges(
    connection: duckdb.DuckDBPyConnection, folder: Path, month: date, rows_per_file: int
) -> list[FeedFile]:
    """Write the charges of each province (null is `unknown`)."""
    provinces = connection.execute(
        "select distinct coalesce(province, 'unknown') as province from charges order by province"
    ).fetchall()
    files = []
    for (province,) in provinces:
        lines = connection.execute(
            f"""
            select {_line(CHARGE_COLUMNS)}, fee_li
            from charges
            where coalesce(province, 'unknown') = $province
            order by msisdn, sp_code, service_code, subscription_id
            """,  # noqa: S608 - columns are the constants above
            {"province": province},
        )
        stem = f"charges_{month:%Y%m}_{province_in_file_name(province)}"
        files += _write_numbered(lines, folder, stem, CHARGE_COLUMNS, rows_per_file)
    return files


def _write_adjustments(
    connection: duckdb.DuckDBPyConnection, folder: Path, month: date, rows_per_file: int
) -> list[FeedFile]:
    """Write the adjustments of each province, as it stands in the name of the file that charged the line first."""
    parts = connection.execute("select distinct province_part from adjustments order by province_part").fetchall()
    files = []
    for (part,) in parts:
        lines = connection.execute(
            f"""
            select {_line(ADJUSTMENT_COLUMNS)}, fee_li
            from adjustments
            where province_part = $part
            order by msisdn, sp_code, service_code, subscription_id
            """,  # noqa: S608 - columns are the constants above
            {"part": part},
        )
        files += _write_numbered(lines, folder, f"adjustments_{month:%Y%m}_{part}", ADJUSTMENT_COLUMNS, rows_per_file)
    return files


def _write_numbered(
    lines: duckdb.DuckDBPyConnection, folder: Path, stem: str, columns: tuple[str, ...], rows_per_file: int
) -> list[FeedFile]:
    """Write the lines of a query, each with its fee, a new file every `rows_per_file` rows."""
    files = []
    for number in itertools.count(1):
        batch = lines.fetchmany(min(LINES_PER_BATCH, rows_per_file))
        if not batch:
            break
        with _FeedFileWriter(folder / f"{stem}_{number:03d}.csv.gz", columns) as writer:
            while batch:
                writer.write([line for line, _ in batch], fee_li=sum(fee for _, fee in batch))
                left = min(LINES_PER_BATCH, rows_per_file - writer.rows)
                batch = lines.fetchmany(left) if left else []
        files.append(writer.entry())
    return files


def _write_settlement(connection: duckdb.DuckDBPyConnection, folder: Path, month: date) -> FeedFile:
    query = f"select {_line(SETTLEMENT_COLUMNS)} from settlement order by sp_code"  # noqa: S608 - constants
    return _write_table(connection, folder / f"settlement_{month:%Y%m}.csv", SETTLEMENT_COLUMNS, query)


def _write_inputs(connection: duckdb.DuckDBPyConnection, folder: Path) -> FeedFile:
    query = f"select {_line(INPUT_COLUMNS)} from inputs order by extract, date, source"  # noqa: S608 - constants
    return _write_table(connection, folder / "inputs.csv.gz", INPUT_COLUMNS, query)


def _write_exclusions(connection: duckdb.DuckDBPyConnection, folder: Path, month: date) -> FeedFile:
    query = f"""
        select {_line(EXCLUSION_COLUMNS)}, fee_li
        from exclusions
        order by msisdn, sp_code, service_code, subscription_id
        """  # noqa: S608 - columns are the constants above
    return _write_table(connection, folder / f"exclusions_{month:%Y%m}.csv.gz", EXCLUSION_COLUMNS, query)


def _write_table(connection: duckdb.DuckDBPyConnection, path: Path, columns: tuple[str, ...], query: str) -> FeedFile:
    """Write one file from a query of lines (and, as second column, fees to add up)."""
    lines = connection.execute(query)
    with _FeedFileWriter(path, columns) as writer:
        while batch := lines.fetchmany(LINES_PER_BATCH):
            writer.write([row[0] for row in batch], fee_li=sum(row[1] for row in batch if len(row) > 1))
    return writer.entry()


class _FeedFileWriter:
    """Writes one file line by line, counting and hashing what reaches the disk; compressed if its name ends in .gz."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self.rows = 0
        self._fee_li = 0
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._compressor = zlib.compressobj(wbits=GZIP_WRAPPER) if path.suffix == ".gz" else None
        self._file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, RESTRICTED_FILE), "wb")
        self._put([",".join(columns)])

    def __enter__(self) -> "_FeedFileWriter":
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        if error_type is None:
            if self._compressor:
                self._emit(self._compressor.flush())
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def write(self, lines: list[str], fee_li: int = 0) -> None:
        self._put(lines)
        self.rows += len(lines)
        self._fee_li += fee_li

    def entry(self) -> FeedFile:
        return FeedFile(
            name=self.path.name, rows=self.rows, bytes=self._bytes, sha256=self._digest.hexdigest(), fee_li=self._fee_li
        )

    def _put(self, lines: list[str]) -> None:
        text = ("\n".join(lines) + "\n").encode("ascii")
        self._emit(self._compressor.compress(text) if self._compressor else text)

    def _emit(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._bytes += len(data)


def _line(columns: tuple[str, ...]) -> str:
    """Return the SQL of one CSV line; every value was validated before, so nothing needs quotes."""
    return " || ',' || ".join(f"coalesce({_written(column)}, '')" for column in columns) + " as line"


def province_in_file_name(province: str) -> str:
    """Return a province as it stands in a file name: as it is written, if of letters, digits, `-`, `_`, `.`, `~`.

    Any other character (a slash, a blank, a quote) is percent-encoded as UTF-8, so two provinces never share a name. A
    text too long for a file name is cut and told apart by its digest (`%~` occurs in no encoded text).
    """
    encoded = "".join(
        character if character.isalnum() or character in SAFE_IN_NAMES else quote(character, safe="")
        for character in province
    )
    if len(encoded.encode()) <= LONGEST_PROVINCE:
        return encoded
    cut = encoded.encode()[:LONGEST_PROVINCE].decode(errors="ignore")
    return f"{cut}%~{hashlib.sha256(province.encode()).hexdigest()[:32]}"


def _sum_dispositions(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    sums = {code: {"count": 0, "fee_li": 0} for code in DISPOSITIONS}
    for code, count, fee_li in connection.execute(
        "select disposition, count(*), sum(fee_li)::hugeint from dispositions group by disposition"
    ).fetchall():
        sums[code] = {"count": count, "fee_li": int(fee_li)}
    return sums


def _list_waivers(connection: duckdb.DuckDBPyConnection) -> list[dict[str, str]]:
    cursor = connection.execute("select * from waivers order by all")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(str, row), strict=True)) for row in cursor.fetchall()]


def key_digest(settings: Settings) -> str:
    """Return what tells two pseudonym keys apart without giving one away: ids made under another key do not compare."""
    return hmac.new(settings.pseudonym_key_bytes(), b"cleanbill feed", hashlib.sha256).hexdigest()


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the manifest of a version folder and the sha256 of its bytes.

    Raises:
        FeedError: there is none or it is none of a feed version.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        manifest = json.loads(content)
        found = None if _is_manifest(manifest) else "something else"
    except (OSError, ValueError, RecursionError) as error:
        found = type(error).__name__
    if found:
        raise FeedError(where=str(path), expected="the manifest of a feed version", found=found, advice=DAMAGED)
    return manifest, hashlib.sha256(content).hexdigest()


def _is_manifest(content: Any) -> bool:
    """Tell whether JSON has the parts of a manifest that its readers rely on."""
    kinds = {"as_of": str, "billing_month": str, "version": int, "digests": dict, "dispositions": dict}
    kinds |= {"files": list, "waivers": list}
    if not isinstance(content, dict) or any(type(content.get(name)) is not kind for name, kind in kinds.items()):
        return False
    return all(isinstance(file, dict) and set(file) >= FILE_FIELDS for file in content["files"])


def read_approval(folder: Path) -> dict[str, Any]:
    """Return the approval of a version folder.

    Raises:
        FeedError: there is none, or it is not one.
    """
    path = folder / APPROVAL
    try:
        approval = json.loads(path.read_bytes())
        missing = sorted(APPROVAL_FIELDS - set(approval if isinstance(approval, dict) else ()))
        found = f"no {', '.join(missing)}" if missing else None
    except (OSError, ValueError, RecursionError) as error:
        found = type(error).__name__
    if found:
        raise FeedError(where=str(path), expected="an approval", found=found, advice=NOT_APPROVED)
    return approval


def verify_version(folder: Path) -> tuple[dict[str, Any], str]:
    """Check every file of a version folder against its manifest; return the manifest and its sha256.

    Raises:
        FeedError: a file is missing, superfluous, or differs in bytes or sha256; it is named.
    """
    manifest, manifest_sha256 = read_manifest(folder)
    named = {entry["name"]: entry for entry in manifest["files"]}
    present = {path.name for path in folder.iterdir()} - {MANIFEST, APPROVAL, SUCCESS}
    for name in sorted(present ^ named.keys()):
        raise FeedError(
            where=str(folder / name),
            expected="exactly the files of manifest.json",
            found="a file it does not name" if name in present else "no such file",
            advice=DAMAGED,
        )
    for name, entry in named.items():
        with (folder / name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != entry["sha256"]:
            raise FeedError(
                where=str(folder / name),
                expected=f"{entry['bytes']} bytes with sha256 {entry['sha256']}",
                found=f"{(folder / name).stat().st_size} bytes with sha256 {sha256}",
                advice=DAMAGED,
            )
    success = folder / SUCCESS
    released = success.read_bytes() if success.exists() else None
    if released is not None and released.strip() != manifest_sha256.encode():
        raise FeedError(
            where=str(success),
            expected=f"the sha256 of manifest.json {manifest_sha256}",
            found=repr(released[:80]),
            advice=DAMAGED,
        )
    return manifest, manifest_sha256


def as_json(content: dict[str, Any]) -> str:
    """Return JSON with sorted keys, so that equal content gives equal bytes."""
    return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str, mode: int = RESTRICTED_FILE) -> None:
    """Write a small file (restricted by default) whole or not at all: temporary name, flush, rename."""
    temporary = path.with_name(path.name + ".writing")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, RESTRICTED_FILE), "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
