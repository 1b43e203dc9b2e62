"""Days as people read them: consecutive ones joined."""

from collections.abc import Iterable
from datetime import date, timedelta


def as_ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """Join consecutive days into (first, last) pairs, in order."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(days):
        if ranges and day - ranges[-1][1] == timedelta(days=1):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def in_words(ranges: Iterable[tuple[date, date]]) -> str:
    """Write ranges as `2026-10-03, 2026-10-07…2026-10-09`: every day is named, none twice."""
    return ", ".join(f"{first}" if first == last else f"{first}…{last}" for first, last in ranges)
