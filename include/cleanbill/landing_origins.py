"""Where landed files came from: kept beside the deliveries, so that a corrected mapping can be applied again.

A manifest names its originals by sha256 only: where they lie on a machine must not change a delivery's bytes.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from cleanbill.settings import Settings
from cleanbill.source_mapping import BUILT_IN

FOLDER = ".origins"
REFUSED_SUFFIX = ".rejected.csv"


@dataclass(frozen=True)
class Origin:
    """One landing, as it was asked for.

    Attributes:
        source: name of the source.
        mapping: the mapping's file, or the name of a built-in one.
        paths, sha256: of each original, by its name in the mapping.
        date_from, date_to: the days asked for; None if the files decided.
        first_day, last_day: the days covered.
    """

    source: str
    mapping: str
    paths: dict[str, str]
    sha256: dict[str, str]
    date_from: date | None
    date_to: date | None
    first_day: date
    last_day: date

    @property
    def days(self) -> str:
        return f"{self.first_day}_{self.last_day}"

    @property
    def kind(self) -> tuple[str, str, tuple[str, ...]]:
        """Landings of one kind take files of the same names through the same mapping."""
        return self.source, Path(self.mapping).stem, tuple(Path(path).name for path in self.paths.values())

    def covers(self, other: "Origin") -> bool:
        """Tell whether this landing did again all that the other did."""
        return self.kind == other.kind and self.first_day <= other.first_day and other.last_day <= self.last_day


def _record_of(origin: Origin, settings: Settings) -> Path:
    digest = hashlib.sha256(repr(origin.kind).encode()).hexdigest()[:16]
    return settings.landing / FOLDER / origin.source / f"{origin.days}_{digest}.json"


def refused_folder(origin: Origin, settings: Settings) -> Path:
    """Return where a landing writes the rows it refused, one file per original."""
    return settings.quarantine / "land" / origin.source / origin.days


def refused_file(origin: Origin, name: str, settings: Settings) -> Path:
    """Return where a landing writes the refused rows of one original, by its name in the mapping."""
    return refused_folder(origin, settings) / (Path(origin.paths[name]).name.removesuffix(".gz") + REFUSED_SUFFIX)


def mapping_reference(path: Path) -> str:
    """Return how a mapping is found again: a built-in one by its name, wherever the program is installed."""
    return path.stem if path.parent == BUILT_IN else str(path.absolute())


def save_origin(origin: Origin, settings: Settings) -> None:
    """Record a landing."""
    target = _record_of(origin, settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}")
    staged.write_text(json.dumps(asdict(origin), default=str, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(staged, target)  # noqa: PTH105 (the rename that makes it visible)


def forget_covered(origin: Origin, settings: Settings) -> None:
    """Remove the records of earlier landings that this one did again, with the rows they refused."""
    for other in read_origins(settings):
        if origin.covers(other) and other.days != origin.days:
            for name in other.paths:
                refused_file(other, name, settings).unlink(missing_ok=True)
            _record_of(other, settings).unlink(missing_ok=True)
    for folder in (settings.quarantine / "land" / origin.source).glob("*"):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def read_origins(settings: Settings) -> list[Origin]:
    """Return every recorded landing; a record that cannot be read is left out (its days say so when asked for)."""
    origins = []
    for path in sorted((settings.landing / FOLDER).glob("*/[!.]*.json")):
        try:
            origins.append(_parse(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return origins


def _parse(fields: dict[str, Any]) -> Origin:
    days = {
        name: date.fromisoformat(fields[name]) if fields[name] else None
        for name in ("date_from", "date_to", "first_day", "last_day")
    }
    return Origin(**{**fields, **days})
