"""What a landing did, as counts: for a terminal and for the report. No values of the source stand in it."""

from dataclasses import dataclass, field, replace
from datetime import date


@dataclass(frozen=True)
class FileCount:
    """Where the rows of one foreign file went: rows = placed + skipped + duplicates + quarantined + left_out.

    `left_out` are rows of days that were not asked for.
    """

    file: str
    rows: int
    placed: int
    skipped: int
    duplicates: int
    quarantined: int
    left_out: int
    sha256: str = ""
    unmapped_columns: list[str] = field(default_factory=list)

    def of(self, sha256: str, unmapped_columns: list[str]) -> "FileCount":
        return replace(self, sha256=sha256, unmapped_columns=unmapped_columns)


@dataclass(frozen=True)
class ExtractCount:
    """What one extract received: records over days, and how many of its deliveries are new."""

    extract: str
    records: int
    added_up: int
    days: int
    days_without_rows: int
    written: int
    unchanged: int


@dataclass(frozen=True)
class QuarantineCount:
    """Rows of one file with one reason; `column` is the contract column that could not be made, `line` the first."""

    file: str
    reason: str
    column: str
    rows: int
    line: int


@dataclass(frozen=True)
class OddityCount:
    """Rows of one file that are odd but not refused."""

    what: str
    file: str
    rows: int
    of: int


@dataclass
class LandSummary:
    """What a landing did and what is odd about what it landed."""

    source: str
    mapping: str
    first_day: date
    last_day: date
    files: list[FileCount] = field(default_factory=list)
    extracts: list[ExtractCount] = field(default_factory=list)
    quarantine: list[QuarantineCount] = field(default_factory=list)
    oddities: list[OddityCount] = field(default_factory=list)
    expected_extracts_changed: bool = False

    @property
    def deliveries_written(self) -> int:
        return sum(count.written for count in self.extracts)

    def render(self) -> str:
        """Return the summary as text for a terminal."""
        lines = [f"source {self.source}, days {self.first_day} to {self.last_day} (mapping {self.mapping})", ""]
        lines.append("rows of each file: in = placed + skipped + duplicates + quarantined")
        for file in self.files:
            lines.append(
                f"  {file.file}: {file.rows:,} = {file.placed:,} + {file.skipped:,} + {file.duplicates:,} "
                f"+ {file.quarantined:,}" + (f" + {file.left_out:,} of days not asked for" if file.left_out else "")
            )
            if file.unmapped_columns:
                lines.append(f"    columns not used: {', '.join(file.unmapped_columns)}")
        lines += ["", "deliveries"]
        for extract in self.extracts:
            added_up = f", {extract.added_up:,} rows added to the count of another" if extract.added_up else ""
            lines.append(
                f"  {extract.extract}: {extract.records:,} records on {extract.days:,} days "
                f"({extract.days_without_rows:,} without rows{added_up}); "
                f"{extract.written:,} written, {extract.unchanged:,} unchanged"
            )
        if self.quarantine:
            lines += ["", f"in quarantine (quarantine/land/{self.source}/{self.first_day}_{self.last_day}/)"]
            lines += [
                f"  {count.file}: {count.rows:,} rows {count.reason} {count.column}".rstrip()
                + f", first in line {count.line:,}"
                for count in self.quarantine
            ]
        found = [odd for odd in self.oddities if odd.rows]
        if found:
            lines += ["", "odd, but not refused"]
            lines += [f"  {odd.file}: {odd.rows:,} of {odd.of:,} rows: {odd.what}" for odd in found]
        if len(found) < len(self.oddities):
            lines += ["", "looked for and not found"]
            lines += [f"  {odd.file}: {odd.what}" for odd in self.oddities if not odd.rows]
        return "\n".join(lines)
