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


@dataclass(frozen=True)
class Origin:
    """One landing, as it was asked for.

    Attributes:
        source: name of the source.
        mapping: the mapping's file, or the name of a built-in one.
        mapping_sha256: what the mapping was then.
        paths, sha256: of each original, by its name in the mapping.
        date_from, date_to: the days asked for; None if the files decided.
        first_day, last_day: the days covered.
    """

    source: str
    mapping: str
    mapping_sha256: str
    paths: dict[str, str]
    sha256: dict[str, str]
    date_from: date | None
    date_to: date | None
    first_day: date
    last_day: date

    def file_name(self) -> str:
        """Files of the same names through the same mapping are the same landing, done again."""
        names = [Path(self.mapping).stem, *(Path(path).name for path in self.paths.values())]
        return hashlib.sha256("\0".join(names).encode()).hexdigest()[:16] + ".json"


def mapping_reference(path: Path) -> str:
    """Return how a mapping is found again: a built-in one by its name, wherever the program is installed."""
    return path.stem if path.parent == BUILT_IN else str(path.absolute())


def save_origin(origin: Origin, settings: Settings) -> None:
    """Record a landing; the one before it of the same files is replaced."""
    folder = settings.landing / FOLDER / origin.source
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / origin.file_name()
    staged = folder / f".{target.name}"
    staged.write_text(json.dumps(asdict(origin), default=str, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(staged, target)  # noqa: PTH105 (the rename that makes it visible)


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
