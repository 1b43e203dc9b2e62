"""The billing feed for old billing systems: a sealed version once more, as fixed-width GBK .dat with .verf.

Where each column stands is data (legacy_layouts.yml), the same table for writer and reader. The files are a pure
function of the sealed version: writing them again gives the same bytes, so `created` in a .verf is no clock but the
midnight that ends the version's as-of date.
"""

import csv
import gzip
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import BinaryIO

import yaml

from cleanbill.control_file import SUFFIX, ControlRow
from cleanbill.errors import FeedError
from cleanbill.feed_files import SUCCESS, flush_folder, read_manifest, verify_version
from cleanbill.feed_versions import RELEASED_FILE, RELEASED_FOLDER, make_released_folder, sealed_folder
from cleanbill.file_lock import alone
from cleanbill.fixed_width import DoesNotFit, read_rows, write_rows
from cleanbill.foreign_text import sha256_of
from cleanbill.settings import Settings, get_settings
from cleanbill.source_mapping import ForeignFile

LAYOUTS = Path(__file__).parent / "legacy_layouts.yml"
FEED_SUFFIX = ".csv.gz"


@cache
def legacy_layouts() -> dict[str, ForeignFile]:
    """Return the layout of each kind of file, by the beginning of its name."""
    raw = yaml.safe_load(LAYOUTS.read_text(encoding="utf-8"))
    return {kind: ForeignFile(**fields) for kind, fields in raw.items()}


def legacy_folder(month: date, version: int = 1, settings: Settings | None = None) -> Path:
    """Return where the fixed-width files of a version are written."""
    return (settings or get_settings()).exports / "legacy" / f"{month:%Y-%m}" / f"v{version}"


def export_legacy(month: date, version: int = 1, settings: Settings | None = None) -> Path:
    """Write a sealed version of a month into exports/legacy/ and return the folder.

    Raises:
        FeedError: the version is not sealed or damaged, or a value does not fit; nothing was written.
    """
    settings = settings or get_settings()
    sealed = sealed_folder(month, version, settings)
    if not (sealed / SUCCESS).is_file():
        raise FeedError(
            where=str(sealed),
            expected="a sealed version of the feed",
            found="none",
            advice=f"release it first: cleanbill bill {month:%Y-%m} --approver NAME",
        )
    target = legacy_folder(month, version, settings)
    make_released_folder(target.parent, settings)
    settings.warehouse_folder.mkdir(parents=True, exist_ok=True)
    with alone(settings.warehouse_folder / "legacy.lock", "the legacy feed is written"):
        return write_legacy(sealed, target)


def write_legacy(version_folder: Path, target: Path) -> Path:
    """Write the charges or adjustments of a sealed version as .dat and .verf; the target appears by one rename.

    A target that is there already is compared and left alone.

    Raises:
        FeedError: the version is damaged, a value does not fit its place or has no GBK, or the target differs.
    """
    manifest, _ = verify_version(version_folder)
    as_of = date.fromisoformat(manifest["as_of"])
    names = [entry["name"] for entry in manifest["files"] if _layout_of(entry["name"]) is not None]
    staged = target.parent / f".{target.name}.writing"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        for name in sorted(names):
            _write_file(version_folder / name, staged, as_of)
        for path in staged.iterdir():
            path.chmod(RELEASED_FILE)
        staged.chmod(RELEASED_FOLDER)
        flush_folder(staged)
        if target.exists():
            _require_equal(staged, target)
        else:
            staged.rename(target)
            flush_folder(target.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _layout_of(name: str) -> ForeignFile | None:
    return legacy_layouts().get(name.partition("_")[0]) if name.endswith(FEED_SUFFIX) else None


def _data_name(feed_file: Path) -> str:
    return f"{feed_file.name.removesuffix(FEED_SUFFIX)}.dat"


def _write_file(feed_file: Path, folder: Path, as_of: date) -> None:
    data = folder / _data_name(feed_file)
    with data.open("xb") as stream:
        records = _write_records(feed_file, stream)
        stream.flush()
        os.fsync(stream.fileno())
    with data.with_suffix(SUFFIX).open("xb") as stream:
        stream.write(_control_line(feed_file, as_of, data.stat().st_size, records))
        stream.flush()
        os.fsync(stream.fileno())


def _write_records(feed_file: Path, stream: BinaryIO) -> int:
    """Write the lines of a feed file as fixed-width records; return how many."""
    file = _layout_of(feed_file.name)
    with gzip.open(feed_file, "rt", encoding="utf-8", newline="") as text:
        rows = csv.reader(text)
        columns = next(rows)
        if columns != file.columns:
            raise FeedError(
                where=feed_file.name,
                expected=f"the columns of {LAYOUTS.name}: {', '.join(file.columns)}",
                found=", ".join(columns),
                advice="give the new columns a place in the layout, and tell whoever reads these files",
            )
        try:
            return write_rows(stream, file.layout, file.encoding, rows)
        except DoesNotFit as error:
            raise FeedError(
                where=f"{feed_file.name}, {error.where}",
                expected=f"a value for {error.place} of {LAYOUTS.name}",
                found=error.found,
                advice="correct the delivery that brought the value; nothing was written, the feed alters nothing",
            ) from error


def _control_line(feed_file: Path, as_of: date, size: int, records: int) -> bytes:
    file = _layout_of(feed_file.name)
    row = ControlRow(
        data_file=_data_name(feed_file),
        data_date=as_of,
        created=f"{as_of + timedelta(days=1):%Y%m%d}000000",
        bytes=size,
        records=records,
        row_length=file.layout.row_length,
    )
    try:
        return row.line(file.verf.delimiter).encode(file.encoding) + b"\n"
    except UnicodeEncodeError as error:
        raise FeedError(
            where=feed_file.name,
            expected=f"a file name {file.encoding} can write",
            found=f"the character U+{ord(error.object[error.start]):04X}",
            advice="have the province of these relations written with other characters",
        ) from error


class _Measured(io.RawIOBase):
    """Takes what would be written to a file, and keeps its size and sha256 only."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self.digest.update(data)
        return len(data)


def differing_files(version_folder: Path, target: Path) -> list[Path]:
    """Return the files of an export that are not what the sealed version gives, also missing and added ones.

    Nothing is written. The version was verified before.

    Raises:
        FeedError: the version cannot be written as fixed-width files.
    """
    manifest, _ = read_manifest(version_folder)
    as_of = date.fromisoformat(manifest["as_of"])
    expected: dict[str, str | None] = {}
    for entry in manifest["files"]:
        feed_file = version_folder / entry["name"]
        if _layout_of(feed_file.name) is None:
            continue
        measured = _Measured()
        records = _write_records(feed_file, measured)
        data = Path(_data_name(feed_file))
        expected[data.name] = measured.digest.hexdigest()
        control = _control_line(feed_file, as_of, measured.size, records)
        expected[data.with_suffix(SUFFIX).name] = hashlib.sha256(control).hexdigest()
    found = {
        path.name: sha256_of(path) if path.is_file() and not path.is_symlink() else None for path in target.iterdir()
    }
    names = sorted(expected.keys() | found.keys())
    return [target / name for name in names if name not in expected or found.get(name) != expected[name]]


def _require_equal(staged: Path, target: Path) -> None:
    def contents(folder: Path) -> dict[str, str]:
        return {path.name: sha256_of(path) for path in folder.iterdir()}

    if contents(staged) != contents(target):
        raise FeedError(
            where=str(target),
            expected="the files written before, byte by byte",
            found="others",
            advice="find out who changed them; move the folder away and export again",
        )


def read_legacy(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a .dat by column, as a reader of the layout sees them.

    Raises:
        FeedError: a row cannot be cut into its columns.
    """
    file = legacy_layouts()[path.name.partition("_")[0]]
    with path.open("rb") as stream:
        for number, row in enumerate(read_rows(stream, file.layout, file.encoding), 1):
            if row.problem is not None:
                raise FeedError(
                    where=f"{path.name}, row {number}",
                    expected=f"a row of {file.layout.row_length} bytes in {file.encoding}",
                    found=row.problem,
                    advice="export the version again",
                )
            yield dict(zip(file.columns, row.columns, strict=True))
