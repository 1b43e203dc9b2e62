"""Delivery names and manifests: only a manifest makes a delivery visible, and nothing in it is believed unchecked.

Files are opened component by component from the landing folder without following links, so that no name can
lead out of it.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from cleanbill.contract import CONTRACTS, SCHEMA_VERSION
from cleanbill.errors import DeliveryRejected

MANIFEST_SUFFIX = ".manifest.json"
# Technical limits: they keep a hostile manifest from costing time or memory.
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_FILES = 10_000
MAX_COUNT = 2**62
MAX_DELIVERY = 999_999

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", re.ASCII)
_LOOKS_LIKE_DELIVERY = re.compile(r".*_d\d+", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_NAME_TAIL = re.compile(r"(?P<source>.+?)(?:_d(?P<delivery>[1-9]\d{0,5}))?", re.ASCII)
_PHONE_NUMBER = re.compile(r"(1\d\d)\d{4}(\d{4})", re.ASCII)
_PART = re.compile(r"(?:_\d{3,6})?\.csv(?:\.gz)?", re.ASCII)


@dataclass(frozen=True, order=True)
class DeliveryKey:
    """What a delivery is: one extract of one source for one business date, in its n-th version."""

    extract: str
    business_date: date
    source: str
    delivery: int

    @property
    def stem(self) -> str:
        """The beginning every file name of this delivery must have."""
        numbering = f"_d{self.delivery}" if self.delivery > 1 else ""
        return f"{self.extract}_{self.business_date:%Y%m%d}_{self.source}{numbering}"

    @property
    def manifest_name(self) -> str:
        return self.stem + MANIFEST_SUFFIX

    def __str__(self) -> str:
        return f"{self.extract} {self.business_date} {self.source} delivery {self.delivery}"


@dataclass(frozen=True)
class ManifestFile:
    """One data file as the manifest announces it."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A manifest whose every field was checked."""

    key: DeliveryKey
    files: tuple[ManifestFile, ...]
    totals: dict[str, int] = field(default_factory=dict)
    identity: str = "msisdn"

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class FoundManifest:
    """A file in landing/ that claims to be a manifest.

    Attributes:
        extract: name of its extract folder, an extract of the contract.
        business_date: its date folder.
        name: file name.
        key: what the file name says; None if the name follows no pattern.
    """

    extract: str
    business_date: date
    name: str
    key: DeliveryKey | None

    @property
    def folder(self) -> tuple[str, str]:
        return self.extract, self.business_date.isoformat()

    @property
    def path(self) -> str:
        """Path relative to the data root, as it is recorded and told."""
        return "/".join(("landing", *self.folder, self.name if self.name.isprintable() else shown(self.name)))


def shown(text: object, limit: int = 80) -> str:
    """Return foreign text for a message: quoted, on one line, cut, without what could be a phone number."""
    result = repr(text) if isinstance(text, str) else json.dumps(text, default=str)
    result = _PHONE_NUMBER.sub(r"\1****\2", result)
    return result if len(result) <= limit else result[:limit] + "…"


def parse_iso_date(text: object) -> date | None:
    """Return the day written `YYYY-MM-DD` with ASCII digits, else None."""
    if not isinstance(text, str) or not _DATE.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def is_source_name(text: str) -> bool:
    """Tell whether a text may name a source: letters, digits, `_`, `-`, and not ending like a delivery number."""
    return bool(_SOURCE.fullmatch(text)) and not _LOOKS_LIKE_DELIVERY.fullmatch(text)


def key_of_name(extract: str, business_date: date, name: str) -> DeliveryKey | None:
    """Return the delivery a manifest's file name speaks of, or None if it follows no pattern."""
    prefix = f"{extract}_{business_date:%Y%m%d}_"
    if not (name.startswith(prefix) and name.endswith(MANIFEST_SUFFIX)):
        return None
    match = _NAME_TAIL.fullmatch(name[len(prefix) : -len(MANIFEST_SUFFIX)])
    if match is None or not is_source_name(match["source"]):
        return None
    key = DeliveryKey(extract, business_date, match["source"], int(match["delivery"] or 1))
    return key if key.manifest_name == name else None


# --- finding ---------------------------------------------------------------------------------------------------


def find_manifests(landing: Path, date_to: date) -> Iterator[FoundManifest | DeliveryRejected]:
    """Yield every manifest of business dates up to `date_to`, in the order of its path.

    Folders that hold manifests but are no extract or no date are yielded as a `DeliveryRejected` that can belong
    to no delivery. Names that begin with a dot are in transfer and invisible.
    """
    for extract_entry in _entries(landing):
        if not extract_entry.is_dir(follow_symlinks=False):
            if extract_entry.is_symlink() and extract_entry.is_dir():
                yield _unsafe_file(f"landing/{extract_entry.name}", "a symbolic link")
            continue
        if extract_entry.name not in CONTRACTS:
            if _holds_manifest(extract_entry.path, levels=2):
                yield DeliveryRejected(
                    "unknown_extract",
                    where=f"landing folder {shown(extract_entry.name)}",
                    expected="one of " + ", ".join(sorted(CONTRACTS)),
                    found="manifests of something else",
                    advice="rename the folder, or remove it from landing/",
                )
            continue
        yield from _find_in_extract(extract_entry, date_to)


def _find_in_extract(extract_entry: os.DirEntry[str], date_to: date) -> Iterator[FoundManifest | DeliveryRejected]:
    extract = extract_entry.name
    for day_entry in _entries(extract_entry.path):
        where = f"landing/{extract}/{shown(day_entry.name)}"
        business_date = parse_iso_date(day_entry.name)
        if not day_entry.is_dir(follow_symlinks=False):
            if day_entry.is_symlink() and day_entry.is_dir():
                yield _unsafe_file(where, "a symbolic link")
            continue
        if business_date is None:
            if _holds_manifest(day_entry.path, levels=1):
                yield DeliveryRejected(
                    "bad_folder",
                    where=where,
                    expected="a folder named YYYY-MM-DD",
                    found=shown(day_entry.name),
                    advice="put the delivery into the folder of its business date",
                )
            continue
        if business_date > date_to:
            continue
        for entry in _entries(day_entry.path):
            if entry.name.endswith(MANIFEST_SUFFIX):
                yield FoundManifest(extract, business_date, entry.name, key_of_name(extract, business_date, entry.name))


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _holds_manifest(folder: str, levels: int) -> bool:
    for entry in _entries(folder):
        if entry.name.endswith(MANIFEST_SUFFIX):
            return True
        if levels > 1 and entry.is_dir(follow_symlinks=False) and _holds_manifest(entry.path, levels - 1):
            return True
    return False


# --- opening ---------------------------------------------------------------------------------------------------


@contextmanager
def open_landed(landing: Path, *parts: str) -> Iterator[int]:
    """Open a plain file below the landing folder and yield its descriptor.

    No component may be a symbolic link, and the file itself no folder, pipe or device.

    Raises:
        DeliveryRejected: `file_missing`, `unsafe_file` or `unreadable_file`.
    """
    where = "/".join(("landing", *(part if part.isprintable() else shown(part) for part in parts)))
    folder = os.open(landing, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            deeper = _open_here(folder, part, os.O_DIRECTORY, where)
            os.close(folder)
            folder = deeper
        # O_NONBLOCK: opening a pipe must not wait for a writer.
        descriptor = _open_here(folder, parts[-1], os.O_NONBLOCK, where)
    finally:
        os.close(folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unsafe_file(where, "a folder, pipe or device")
        yield descriptor
    finally:
        os.close(descriptor)


def _open_here(folder: int, name: str, flags: int, where: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    except FileNotFoundError:
        raise DeliveryRejected(
            "file_missing", where, "a file", "nothing", "send the file again, then the manifest as the next delivery"
        ) from None
    except (OSError, ValueError) as error:
        try:
            is_link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except (OSError, ValueError):
            is_link = False
        if is_link:
            raise _unsafe_file(where, "a symbolic link") from None
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DeliveryRejected(
            "unreadable_file", where, "a file that can be read", reason, "check the file and its permissions"
        ) from None


def _unsafe_file(where: str, found: str) -> DeliveryRejected:
    return DeliveryRejected("unsafe_file", where, "a plain file or folder", found, "copy the file itself into landing/")


# --- reading ---------------------------------------------------------------------------------------------------


def read_manifest_bytes(landing: Path, found: FoundManifest) -> tuple[bytes, str]:
    """Return a manifest's bytes and their sha256.

    Raises:
        DeliveryRejected: the file is no plain file, unreadable or absurdly large.
    """
    with open_landed(landing, *found.folder, found.name) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > MAX_MANIFEST_BYTES:
            raise DeliveryRejected(
                "manifest_not_json", found.path, f"at most {MAX_MANIFEST_BYTES} bytes", f"{size} bytes", _FIX_MANIFEST
            )
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            content = stream.read(MAX_MANIFEST_BYTES + 1)
    return content, hashlib.sha256(content).hexdigest()


_FIX_MANIFEST = "correct the manifest and send it again"


def parse_manifest(found: FoundManifest, content: bytes) -> Manifest:
    """Return the checked manifest of a delivery.

    Raises:
        DeliveryRejected: any field is missing, of the wrong type, or contradicts file name and folder.
    """
    if found.key is None:
        raise DeliveryRejected(
            "bad_manifest_name",
            found.path,
            f"{found.extract}_{found.business_date:%Y%m%d}_<source>[_d<delivery>]{MANIFEST_SUFFIX}",
            shown(found.name),
            "rename manifest and files to the pattern; _d<delivery> is written from delivery 2 on",
        )
    reader = _Fields(found, _load_object(found, content))
    version = reader.integer("schema_version", minimum=-MAX_COUNT)
    if version != SCHEMA_VERSION:
        raise DeliveryRejected(
            "unknown_schema_version", found.path, f"schema_version {SCHEMA_VERSION}", str(version), _FIX_MANIFEST
        )
    reader.must_agree("extract", reader.text("extract"), found.extract)
    reader.must_agree("business_date", reader.text("business_date"), found.business_date.isoformat())
    reader.must_agree("source", reader.text("source"), found.key.source)
    reader.must_agree("delivery", reader.integer("delivery", minimum=1), found.key.delivery)
    return Manifest(
        key=found.key,
        files=_read_files(found, found.key, reader),
        totals=_read_totals(found, reader),
        identity=_read_identity(found, reader),
    )


def _load_object(found: FoundManifest, content: bytes) -> dict[str, Any]:
    def refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            raise ValueError("a key occurs twice")
        return result

    def refuse_constant(text: str) -> None:
        raise ValueError(f"{text} is no JSON")

    try:
        fields = json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=refuse_doubles, parse_constant=refuse_constant
        )
    except (ValueError, RecursionError) as error:
        # The decoder's own message names line and column and quotes nothing.
        reason = "bytes that are not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error) or "deep nesting"
        raise DeliveryRejected("manifest_not_json", found.path, "a JSON object", shown(reason), _FIX_MANIFEST) from None
    if not isinstance(fields, dict):
        raise DeliveryRejected(
            "manifest_not_json", found.path, "a JSON object", f"a JSON {type(fields).__name__}", _FIX_MANIFEST
        )
    return fields


@dataclass(frozen=True)
class _Fields:
    """Typed access to the fields of one JSON object, with errors that name the field."""

    found: FoundManifest
    fields: dict[str, Any]
    where: str = ""

    def wrong(self, name: str, expected: str, found: str) -> DeliveryRejected:
        return DeliveryRejected(
            "bad_manifest_field", f"{self.found.path} field {self.where}{name}", expected, found, _FIX_MANIFEST
        )

    def take(self, name: str, kind: type, expected: str) -> Any:
        if name not in self.fields:
            raise self.wrong(name, expected, "nothing")
        value = self.fields[name]
        # bool is an int for Python, not for a manifest.
        if type(value) is not kind:
            raise self.wrong(name, expected, shown(value))
        return value

    def text(self, name: str) -> str:
        return self.take(name, str, "a text")

    def integer(self, name: str, minimum: int = 0) -> int:
        value = self.take(name, int, "an integer")
        if not minimum <= value <= MAX_COUNT:
            raise self.wrong(name, f"an integer from {minimum}", shown(value))
        return value

    def must_agree(self, name: str, value: object, expected: object) -> None:
        if value != expected:
            raise DeliveryRejected(
                "manifest_mismatch",
                f"{self.found.path} field {name}",
                f"{shown(expected)} as file name and folder say",
                shown(value),
                "make manifest, file name and folder agree",
            )


def _read_files(found: FoundManifest, key: DeliveryKey, reader: _Fields) -> tuple[ManifestFile, ...]:
    listed = reader.take("files", list, "a list of files")
    if len(listed) > MAX_FILES:
        raise reader.wrong("files", f"at most {MAX_FILES} files", str(len(listed)))
    files = []
    for place, item in enumerate(listed):
        if not isinstance(item, dict):
            raise reader.wrong(f"files[{place}]", "an object", shown(item))
        entry = _Fields(found, item, where=f"files[{place}].")
        name = entry.text("name")
        _check_file_name(found, key, name)
        sha256 = entry.text("sha256")
        if not _SHA256.fullmatch(sha256):
            raise entry.wrong("sha256", "64 hex digits", shown(sha256))
        files.append(ManifestFile(name, entry.integer("rows"), entry.integer("bytes"), sha256.lower()))
    names = [file.name for file in files]
    if len(set(names)) < len(names):
        raise reader.wrong("files", "each file once", "a file name twice")
    return tuple(sorted(files, key=lambda file: file.name))


def _check_file_name(found: FoundManifest, key: DeliveryKey, name: str) -> None:
    unsafe = "/" in name or "\\" in name or name.startswith((".", "-", "~")) or not name.isprintable()
    if not unsafe and name.startswith(key.stem) and _PART.fullmatch(name[len(key.stem) :]):
        return
    raise DeliveryRejected(
        "unsafe_name" if unsafe else "bad_file_name",
        f"{found.path} field files[].name",
        f"{key.stem}[_<nnn>].csv[.gz]",
        shown(name),
        "name the data files after the delivery, without any folder",
    )


def _read_totals(found: FoundManifest, reader: _Fields) -> dict[str, int]:
    if reader.fields.get("totals") is None:
        return {}
    totals = reader.take("totals", dict, "an object of column and sum")
    countable = CONTRACTS[found.extract].integer_columns
    for column, total in totals.items():
        if column not in countable:
            expected = "one of " + ", ".join(countable) if countable else "no total (no column can be summed)"
            raise reader.wrong("totals", expected, shown(column))
        if type(total) is not int or abs(total) > MAX_COUNT:
            raise reader.wrong(f"totals.{column}", "an integer", shown(total))
    return dict(totals)


def _read_identity(found: FoundManifest, reader: _Fields) -> str:
    if "identity" not in reader.fields:
        return "msisdn"
    identity = reader.text("identity")
    if identity not in ("msisdn", "opaque"):
        raise reader.wrong("identity", "'msisdn' or 'opaque'", shown(identity))
    return identity
