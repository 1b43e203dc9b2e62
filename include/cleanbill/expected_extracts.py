"""Write `expected_extracts.csv`: which (extract, source) pairs must deliver, from which day to which.

Without that file every pair ever seen is expected daily from its first business date (2-extracts.md). The moment
the file exists only what is in it is expected: so whoever creates it must first write down what was expected
without it, or another source's missing days would no longer be seen.
"""

from dataclasses import astuple, dataclass, replace
from datetime import date
from pathlib import Path

from cleanbill.manifest import FoundManifest, find_manifests
from cleanbill.reference_files import read_lines, write_lines

COLUMNS = ("extract", "source", "schedule", "valid_from", "valid_to")
SCHEDULES = ("daily", "optional")
OPTIONAL_WITHOUT_FILE = ("relation_snapshot",)


@dataclass(frozen=True)
class ExpectedPair:
    """One line of the file; `valid_to` is the last expected day, None is open."""

    extract: str
    source: str
    schedule: str
    valid_from: date
    valid_to: date | None


def expected_extracts_path(home: Path) -> Path:
    """Return where the file lies under a data root."""
    return home / "expected_extracts.csv"


def read_expected_pairs(home: Path) -> list[ExpectedPair] | None:
    """Return the lines of the file, or None if there is no file.

    Raises:
        InputFileError: the header or a line is not as 2-extracts.md says.
    """
    lines = read_lines(expected_extracts_path(home), COLUMNS)
    if lines is None:
        return None
    return [
        ExpectedPair(line.extract(), line.source(), line.one_of("schedule", SCHEDULES), *line.validity())
        for line in lines
    ]


def expect_also(home: Path, pairs: list[ExpectedPair]) -> bool:
    """Add pairs to the file, widening the days of those already in it; return whether the file changed.

    A pair that is in the file with the same schedule keeps one line, from the earlier first to the later last day.
    """
    known = read_expected_pairs(home)
    lines = _pairs_seen(home, {(pair.extract, pair.source) for pair in pairs}) if known is None else list(known)
    for pair in pairs:
        same = [
            number
            for number, line in enumerate(lines)
            if (line.extract, line.source, line.schedule) == (pair.extract, pair.source, pair.schedule)
        ]
        if not same:
            lines.append(pair)
            continue
        line = lines[same[0]]
        is_open = line.valid_to is None or pair.valid_to is None
        lines[same[0]] = replace(
            line,
            valid_from=min(line.valid_from, pair.valid_from),
            valid_to=None if is_open else max(line.valid_to, pair.valid_to),
        )
    if lines == known:
        return False
    write_lines(expected_extracts_path(home), COLUMNS, [astuple(line) for line in lines])
    return True


def _pairs_seen(home: Path, except_for: set[tuple[str, str]]) -> list[ExpectedPair]:
    """Return what is expected without a file: each pair seen in landing, daily since its first business date."""
    first_days: dict[tuple[str, str], date] = {}
    for found in find_manifests(home / "landing", date.max):
        if isinstance(found, FoundManifest) and found.key is not None:
            pair = (found.extract, found.key.source)
            if pair not in except_for:
                first_days[pair] = min(found.business_date, first_days.get(pair, found.business_date))
    return [
        ExpectedPair(extract, source, "optional" if extract in OPTIONAL_WITHOUT_FILE else "daily", day, None)
        for (extract, source), day in sorted(first_days.items())
    ]
