"""Read a landing folder as the input contract says: manifests, files, records, and what is in force."""

import csv
import gzip
import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

from tests.oracle.rules import LATENESS_DAYS, QUARANTINE_PERCENT

# column -> (kind, required). Kinds: text, msisdn, sp, service, time, date, integer, fee, boolean or a tuple of codes.
CONTRACT = {
    "relation_events": {
        "event_id": ("text", True),
        "msisdn": ("msisdn", True),
        "sp_code": ("sp", True),
        "service_code": ("service", False),
        "action": (("order", "cancel", "suspend", "resume", "activate", "cancel_all", "suspend_all", "replace"), True),
        "event_time": ("time", True),
        "channel": ("text", False),
        "confirmed_at": ("time", False),
        "province": ("text", False),
        "old_service_code": ("service", False),
    },
    "relation_snapshot": {
        "msisdn": ("msisdn", True),
        "sp_code": ("sp", True),
        "service_code": ("service", True),
        "status": (("active", "suspended"), True),
        "first_ordered_at": ("time", False),
        "ordered_at": ("time", True),
        "confirmed_at": ("time", False),
        "channel": ("text", False),
        "province": ("text", False),
    },
    "sms_usage": {
        "msisdn": ("msisdn", True),
        "sp_code": ("sp", True),
        "service_code": ("service", True),
        "direction": (("MT", "MO"), True),
        "sent_at": ("time", True),
        "status": (("ok", "failed"), True),
        "purpose": (("content", "fee", "reminder", "test"), True),
        "message_count": ("integer", True),
        "fee_li": ("fee", True),
    },
    "wap_usage": {
        "msisdn": ("msisdn", True),
        "sp_code": ("sp", True),
        "service_code": ("service", True),
        "accessed_at": ("time", True),
        "status": (("ok", "failed"), True),
        "hits": ("integer", True),
        "fee_li": ("fee", True),
    },
    "gprs_usage": {
        "msisdn": ("msisdn", True),
        "apn": ("apn", False),
        "started_at": ("time", True),
        "up_bytes": ("integer", True),
        "down_bytes": ("integer", True),
    },
    "service_catalogue": {
        "sp_code": ("sp", True),
        "service_code": ("service", True),
        "service_name": ("text", False),
        "service_class": (("sms", "mms", "wap", "portal", "ivr", "other"), True),
        "is_portal": ("boolean", True),
        "billing_type": (("monthly", "per_use", "free"), True),
        "monthly_fee_li": ("fee", False),
        "status": (("active", "inactive"), False),
        "valid_from": ("date", True),
        "marketing_text": ("text", False),
    },
    "service_providers": {
        "sp_code": ("sp", True),
        "sp_name": ("text", False),
        "province": ("text", False),
        "status": (("active", "inactive"), False),
        "contact": ("text", False),
    },
    "sp_reports": {
        "report_id": ("text", True),
        "sp_code": ("sp", True),
        "service_code": ("service", True),
        "msisdn": ("msisdn", True),
        "anomaly_type": ("text", False),
        "reported_at": ("time", True),
    },
    "sp_penalties": {
        "penalty_id": ("text", True),
        "sp_code": ("sp", True),
        "service_code": ("service", False),
        "suspended_from": ("time", True),
        "suspended_to": ("time", False),
        "reason": ("text", False),
    },
    "refunds": {
        "refund_id": ("text", True),
        "msisdn": ("msisdn", True),
        "sp_code": ("sp", True),
        "service_code": ("service", True),
        "billing_month": ("date", True),
        "amount_li": ("integer", True),
        "times": ("integer", True),
        "reason": ("text", False),
    },
    "line_status": {
        "msisdn": ("msisdn", True),
        "status": (("stopped", "closed"), True),
        "from_time": ("time", True),
        "to_time": ("time", False),
    },
}
USAGE_EXTRACTS = ("sms_usage", "wap_usage", "gprs_usage")
REFUSED_WHEN_REPEATED = ("relation_events", "sms_usage", "wap_usage", "gprs_usage", "sp_reports", "refunds")
RECORD_TIME = {
    "relation_events": "event_time",
    "sms_usage": "sent_at",
    "wap_usage": "accessed_at",
    "gprs_usage": "started_at",
    "sp_reports": "reported_at",
}
OPTIONAL_COLUMNS = {"relation_events": {"old_service_code"}}


class Rejected(Exception):
    """A whole delivery that cannot be accepted."""


class BadRecord(Exception):
    """One record that goes to quarantine; the text is the reason."""


@dataclass
class Delivery:
    """One delivery seen in landing."""

    extract: str
    business_date: date
    source: str
    delivery: int
    manifest_sha256: str
    manifest_path: str
    rows_in: int = 0
    rows_loaded: int = 0
    rows_quarantined: int = 0
    rows_duplicate: int = 0
    files: list = field(default_factory=list)  # (name, sha256, rows)
    rows: list = field(default_factory=list)  # dicts of typed values
    quarantined: list = field(default_factory=list)  # (file, line, reason)
    status: str = "accepted"

    @property
    def key(self) -> tuple:
        return (self.extract, self.business_date, self.source)


@dataclass
class Landing:
    """What a landing folder holds."""

    accepted: list
    over_limit: list
    rejected: list  # (manifest path, reason)
    refused: list  # accepted ones refused because their bytes are in force elsewhere
    in_force: dict  # (extract, business_date, source) -> Delivery


# ------------------------------------------------------------------------------------------------- values


def parse_time(text: str) -> datetime:
    """Parse both spellings of a local time; 24:00:00 is the next midnight."""
    match = re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})", text) or re.fullmatch(
        r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})", text
    )
    if not match:
        raise BadRecord("bad time")
    year, month, day, hour, minute, second = (int(part) for part in match.groups())
    try:
        if hour == 24 and minute == 0 and second == 0:
            return datetime(year, month, day) + timedelta(days=1)
        return datetime(year, month, day, hour, minute, second)
    except (ValueError, OverflowError) as error:
        raise BadRecord("bad time") from error


def parse_date(text: str) -> date:
    """Parse YYYY-MM-DD."""
    match = re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", text)
    if not match:
        raise BadRecord("bad date")
    try:
        return date(*(int(part) for part in match.groups()))
    except ValueError as error:
        raise BadRecord("bad date") from error


def parse_integer(text: str) -> int:
    """Parse plain digits with an optional sign that fit 64 bits."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise BadRecord("bad number")
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise BadRecord("bad number")
    return number


def normalise_msisdn(text: str) -> str:
    """Strip one prefix +86, 0086 or 86; what remains must be 1 and ten digits."""
    match = re.fullmatch(r"(?:\+86|0086|86)?(1[0-9]{10})", text)
    if not match:
        raise BadRecord("bad msisdn")
    return match.group(1)


def parse_value(kind: object, text: str, opaque: bool) -> object:
    """Turn one non-empty field into its typed value."""
    if isinstance(kind, tuple):
        if text not in kind:
            raise BadRecord("bad code")
        return text
    if kind == "msisdn":
        return text if opaque else normalise_msisdn(text)
    if kind == "sp":
        if not re.fullmatch(r"[0-9]{6}", text):
            raise BadRecord("bad code")
        return text
    if kind == "service":
        if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,9}", text):
            raise BadRecord("bad code")
        return text
    if kind == "time":
        return parse_time(text)
    if kind == "date":
        return parse_date(text)
    if kind == "integer":
        return parse_integer(text)
    if kind == "fee":
        number = parse_integer(text)
        if number < 0:
            raise BadRecord("negative fee")
        return number
    if kind == "boolean":
        if text not in ("true", "false"):
            raise BadRecord("bad code")
        return text == "true"
    if kind == "apn":
        return text.upper()
    return text


# ------------------------------------------------------------------------------------------------- files


def split_records(text: str) -> list:
    """Split CSV text into (line number, list of fields or None when the quotes are wrong)."""
    if '"' not in text:
        lines = text.split("\n")
        if lines[-1] == "":
            lines.pop()
        return [(number, line.removesuffix("\r").split(",")) for number, line in enumerate(lines, start=1)]
    records, position, line = [], 0, 1
    while position < len(text):
        first_line, fields, well_formed, ended = line, [], True, False
        while not ended:
            value = []
            if text[position : position + 1] == '"':
                position += 1
                closed = False
                while position < len(text) and not closed:
                    if text[position] != '"':
                        line += text[position] == "\n"
                        value.append(text[position])
                        position += 1
                    elif text[position + 1 : position + 2] == '"':
                        value.append('"')
                        position += 2
                    else:
                        closed = True
                        position += 1
                well_formed = well_formed and closed
                if text[position : position + 1] not in (",", "\n", "") and text[position : position + 2] != "\r\n":
                    well_formed = False
            while position < len(text) and text[position] not in ",\n":
                if text[position] == '"':
                    well_formed = False
                value.append(text[position])
                position += 1
            if position >= len(text):
                ended = True
            elif text[position] == "\n":
                ended = True
                line += 1
                position += 1
            else:
                position += 1
            word = "".join(value)
            fields.append(word.removesuffix("\r") if ended else word)
        records.append((first_line, fields if well_formed else None))
    return records


def read_text(path: Path) -> str:
    """Return the text of a data file; bytes that are no UTF-8 stay visible as lone surrogates."""
    raw = path.read_bytes()
    if path.name.endswith(".gz"):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise Rejected(f"{path.name}: not a whole gzip file") from error
    return raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")


def parse_record(delivery: Delivery, header: list, fields: list | None, opaque: bool) -> dict:
    """Turn one record into typed values or raise BadRecord."""
    if fields is None:
        raise BadRecord("bad quotes")
    if len(fields) != len(header):
        raise BadRecord("wrong number of fields")
    if any("\x00" in value or re.search("[\udc80-\udcff]", value) for value in fields):
        raise BadRecord("invalid bytes")
    by_name = dict(zip(header, fields, strict=True))
    row = {}
    for column, (kind, required) in CONTRACT[delivery.extract].items():
        text = by_name.get(column, "")
        if text == "":
            if required:
                raise BadRecord("missing value")
            row[column] = None
        else:
            row[column] = parse_value(kind, text, opaque)
    if delivery.extract == "relation_events":
        if (row["service_code"] is None) != (row["action"] in ("cancel_all", "suspend_all")):
            raise BadRecord("missing value, or a service where all of the SP are meant")
        if row["action"] == "replace" and row["old_service_code"] is None:
            raise BadRecord("missing value")
    if delivery.extract == "service_catalogue" and row["billing_type"] == "monthly" and row["monthly_fee_li"] is None:
        raise BadRecord("missing value")
    if delivery.extract == "refunds":
        if row["times"] not in (1, 2):
            raise BadRecord("bad code")
        if row["billing_month"].day != 1:
            raise BadRecord("bad date")
    if delivery.extract in RECORD_TIME:
        time = row[RECORD_TIME[delivery.extract]]
        midnight = datetime.combine(delivery.business_date, datetime.min.time())
        if not midnight - timedelta(days=LATENESS_DAYS) <= time <= midnight + timedelta(days=1):
            raise BadRecord("time outside the allowed lateness")
    return row


def read_delivery(manifest_path: Path, landing: Path) -> Delivery:
    """Verify and parse one delivery.

    Raises:
        Rejected: the manifest or one of its files is not as the contract asks.
    """
    raw = manifest_path.read_bytes()
    try:
        manifest = json.loads(raw)
        extract, source, number = manifest["extract"], manifest["source"], manifest["delivery"]
        business_date = parse_date(manifest["business_date"])
        files, version = manifest["files"], manifest["schema_version"]
    except (ValueError, KeyError, TypeError, BadRecord) as error:
        raise Rejected(f"manifest: {error!r}") from error
    if extract not in CONTRACT or version != 1 or type(number) is not int or number < 1:
        raise Rejected("manifest: unknown extract, schema version or delivery number")
    stem = f"{extract}_{business_date:%Y%m%d}_{source}" + (f"_d{number}" if number > 1 else "")
    expected = landing / extract / business_date.isoformat() / f"{stem}.manifest.json"
    if manifest_path != expected:
        raise Rejected("manifest: name and content differ")
    delivery = Delivery(
        extract,
        business_date,
        source,
        number,
        hashlib.sha256(raw).hexdigest(),
        manifest_path.relative_to(landing.parent).as_posix(),
    )
    opaque = manifest.get("identity") == "opaque"
    totals = dict.fromkeys(manifest.get("totals") or {}, 0)
    parsed = []
    for entry in sorted(files, key=lambda entry: entry["name"]):
        name = entry["name"]
        if not re.fullmatch(re.escape(stem) + r"(_[0-9]{3})?\.csv(\.gz)?", name):
            raise Rejected(f"{name}: not a name of this delivery")
        path = manifest_path.parent / name
        if path.is_symlink() or not path.is_file():
            raise Rejected(f"{name}: missing")
        content = path.read_bytes()
        if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise Rejected(f"{name}: bytes or sha256 differ")
        records = split_records(read_text(path))
        if not records:
            raise Rejected(f"{name}: no header")
        header = records[0][1] or []
        missing = set(CONTRACT[extract]) - OPTIONAL_COLUMNS.get(extract, set()) - set(header)
        if missing or len(set(header)) != len(header):
            raise Rejected(f"{name}: header names missing or doubled")
        if len(records) - 1 != entry["rows"]:
            raise Rejected(f"{name}: expected {entry['rows']} rows, found {len(records) - 1}")
        delivery.files.append((name, entry["sha256"], entry["rows"]))
        delivery.rows_in += entry["rows"]
        for total in totals:
            for _, fields in records[1:]:
                value = dict(zip(header, fields or [], strict=False)).get(total, "")
                if re.fullmatch(r"[+-]?[0-9]+", value):
                    totals[total] += int(value)
        parsed.extend((name, line, header, fields) for line, fields in records[1:])
    if totals != (manifest.get("totals") or {}):
        raise Rejected(f"totals: expected {manifest['totals']}, found {totals}")
    seen = set()
    for name, line, header, fields in parsed:
        try:
            row = parse_record(delivery, header, fields, opaque)
        except BadRecord as reason:
            delivery.rows_quarantined += 1
            delivery.quarantined.append((name, line, str(reason)))
            continue
        content = tuple(row.values())
        if extract in USAGE_EXTRACTS and content in seen:
            delivery.rows_duplicate += 1
            continue
        seen.add(content)
        row["business_date"], row["source"] = business_date, source
        delivery.rows.append(row)
        delivery.rows_loaded += 1
    if delivery.rows_quarantined * 100 > delivery.rows_in * QUARANTINE_PERCENT:
        delivery.status = "over_limit"
    return delivery


def choose_in_force(accepted: list) -> tuple[dict, list]:
    """Choose the delivery that counts for each (extract, business date, source).

    The highest number counts, unless one of its files repeats the bytes of a file in force under another key of
    the same extract (walking from the earliest key on, so that the earliest keeps the bytes).
    """
    by_key: dict = {}
    for delivery in accepted:
        by_key.setdefault(delivery.key, []).append(delivery)
    in_force, refused, bytes_in_force = {}, [], set()
    for key in sorted(by_key):
        for delivery in sorted(by_key[key], key=lambda one: -one.delivery):
            digests = {(delivery.extract, sha) for _, sha, rows in delivery.files if rows > 0}
            if delivery.extract in REFUSED_WHEN_REPEATED and digests & bytes_in_force:
                refused.append(delivery)
                continue
            in_force[key] = delivery
            bytes_in_force |= digests
            break
    return in_force, refused


def read_landing(home: Path) -> Landing:
    """Read every manifest below `home/landing`; what withdrawals.csv takes back is as good as not there."""
    landing = home / "landing"
    accepted, over_limit, rejected = [], [], []
    for path in sorted(landing.glob("*/*/*.manifest.json")):
        try:
            delivery = read_delivery(path, landing)
        except Rejected as reason:
            rejected.append((path.relative_to(home).as_posix(), str(reason)))
            continue
        (accepted if delivery.status == "accepted" else over_limit).append(delivery)
    withdrawn = {
        (row["extract"], optional_date(row["business_date"]), row["source"], int(row["delivery"]))
        for row in read_reference(home / "withdrawals.csv") or []
    }
    in_force, refused = choose_in_force([one for one in accepted if (*one.key, one.delivery) not in withdrawn])
    return Landing(accepted, over_limit, rejected, refused, in_force)


# ------------------------------------------------------------------------------------------- reference files


def read_reference(path: Path) -> list | None:
    """Return the rows of a small reference file of the data root, or None if there is none."""
    if not path.exists():
        return None
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def optional_date(text: str | None) -> date | None:
    """Return a date, or None for an empty field."""
    return parse_date(text) if text else None
