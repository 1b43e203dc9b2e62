"""Where the feed of a month lives: restricted working folders, and the sealed versions the consumer reads."""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from cleanbill import feed_files
from cleanbill.errors import FeedError
from cleanbill.settings import Settings, get_settings, parse_month

RESTRICTED_FOLDER = 0o700
RELEASED_FOLDER = 0o750
RELEASED_FILE = 0o640
ACKS_FOLDER_MODE = 0o770  # the consumer's group writes its answers there
ACKS = "acks"
VERSION_NAME = re.compile(r"v([1-9][0-9]{0,5})")
MONTH_NAME = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@dataclass(frozen=True)
class SealedVersion:
    """One version the consumer can see."""

    month: date
    version: int
    folder: Path


def working_folder(month: date, settings: Settings | None = None) -> Path:
    """Return the restricted folder where the feed of a month is made."""
    return (settings or get_settings()).warehouse_folder / "billing" / f"{month:%Y-%m}"


def feed_database(month: date, settings: Settings | None = None) -> Path:
    """Return the frozen file of a month that the export gate reads."""
    return working_folder(month, settings) / "feed.duckdb"


def draft_folder(month: date, settings: Settings | None = None) -> Path:
    """Return the folder of a month's draft that waits for approval."""
    return working_folder(month, settings) / "draft"


def approved_folder(month: date, settings: Settings | None = None) -> Path:
    """Return the folder of a month's approved feed that waits for sealing."""
    return working_folder(month, settings) / "approved"


def released_folder(month: date, settings: Settings | None = None) -> Path:
    """Return the folder of a month that the consumer polls."""
    return (settings or get_settings()).exports / "billing" / f"{month:%Y-%m}"


def sealed_folder(month: date, version: int = 1, settings: Settings | None = None) -> Path:
    """Return the folder of one version the consumer reads."""
    return released_folder(month, settings) / f"v{version}"


def sealed_versions(month: date, settings: Settings | None = None) -> list[SealedVersion]:
    """Return the sealed versions of a month, oldest first.

    Raises:
        FeedError: they are not v1, v2, … without a gap: one was removed.
    """
    folder = released_folder(month, settings)
    numbers = sorted(numbers_in(folder))
    if numbers != list(range(1, len(numbers) + 1)):
        missing = min(set(range(1, numbers[-1] + 1)) - set(numbers))
        raise FeedError(
            where=str(folder / f"v{missing}"),
            expected=f"every version up to v{numbers[-1]}",
            found="no such folder",
            advice=feed_files.DAMAGED,
        )
    return [SealedVersion(month, number, folder / f"v{number}") for number in numbers]


def numbers_in(folder: Path) -> list[int]:
    """Return the numbers of the version folders of a released month, in no order."""
    if not folder.is_dir():
        return []
    found = (VERSION_NAME.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())
    return [int(match.group(1)) for match in found if match]


def released_months(settings: Settings) -> list[date]:
    """Return the first days of the months that have a folder in `exports/billing`, oldest first."""
    root = settings.exports / "billing"
    if not root.is_dir():
        return []
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and MONTH_NAME.fullmatch(path.name))
    return [parse_month(name) for name in names]


def make_released_folder(folder: Path, settings: Settings) -> None:
    """Create a folder of `exports/` readable by the consumer's group and make each new name durable."""
    missing = []
    while not folder.exists() and folder != settings.home:
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(RELEASED_FOLDER, parents=True)
        new.chmod(RELEASED_FOLDER)  # whatever the umask
        feed_files.flush_folder(new.parent)
