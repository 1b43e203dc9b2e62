"""Replay what a corrected mapping repairs: only the deliveries that hold records refused for these reasons.

What was made by `cleanbill land` is made again from the original files, under the next delivery number, and only
where its content changes. A source's own delivery cannot be repaired here: it says who has to send what.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from cleanbill.deliveries import ACCEPTED
from cleanbill.errors import CleanbillError, InputFileError, LandingRefused
from cleanbill.foreign_text import sha256_of
from cleanbill.land import Repair, land
from cleanbill.land_summary import LandSummary
from cleanbill.landed_deliveries import MADE_BY
from cleanbill.landing_origins import Origin, read_origins, refused_file
from cleanbill.manifest import MANIFEST_SUFFIX, DeliveryKey
from cleanbill.quarantine import (
    HeldDelivery,
    QuarantineEntry,
    Selection,
    read_held_deliveries,
    read_quarantine,
    refused_lines,
)
from cleanbill.settings import Settings, get_settings
from cleanbill.source_mapping import load_mapping


@dataclass
class ReplayResult:
    """What a replay did and what it could not do; each text is one line for people.

    Attributes:
        landed: the landings done again, with what they wrote.
        unrepaired: landings that could not be done again, and why.
        retried: deliveries that the next run tries again by itself.
        to_resend: what a source has to send again.
    """

    landed: list[LandSummary] = field(default_factory=list)
    unrepaired: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    to_resend: list[str] = field(default_factory=list)
    days: set[date] = field(default_factory=set)

    def render(self) -> str:
        """Return the result as text for a terminal."""
        lines: list[str] = []
        for summary in self.landed:
            lines.append(f"landed again: source {summary.source} (mapping {summary.mapping})")
            lines += [
                f"  {file.file}: {file.rows:,} = {file.placed:,} placed + {file.skipped:,} skipped "
                f"+ {file.duplicates:,} duplicates + {file.quarantined:,} refused"
                + (f" + {file.left_out:,} of days not asked for" if file.left_out else "")
                for file in summary.files
            ]
            lines += [
                f"  {count.extract}: {count.written:,} deliveries written, {count.unchanged:,} unchanged"
                for count in summary.extracts
                if count.days
            ]
        for title, texts in (
            ("could not be landed again", self.unrepaired),
            ("tried again by the next run", self.retried),
            ("must be sent again by their source", self.to_resend),
        ):
            if texts:
                lines += [title, *(f"  {text}" for text in texts)]
        if any(summary.deliveries_written for summary in self.landed):
            lines.append(f"next: cleanbill run --from {min(self.days)} --to {max(self.days)}")
        return "\n".join(lines) or "nothing in quarantine for these reasons"


@dataclass
class _Task:
    """One recorded landing, and what of it is to be done again."""

    origin: Origin
    deliveries: set[tuple[str, date]] = field(default_factory=set)
    lines: dict[str, frozenset[int]] = field(default_factory=dict)


def replay(
    reasons: Collection[str] = (),
    deliveries: Collection[str] = (),
    mapping: Path | None = None,
    settings: Settings | None = None,
) -> ReplayResult:
    """Land again what holds records refused for these reasons, or the named deliveries.

    Args:
        reasons: reason codes of rows or records.
        deliveries: names of deliveries, as in landing/ (`<extract>_<YYYYMMDD>_<source>[_d<delivery>]`).
        mapping: the corrected mapping, if it is not where it was; then only its source is landed again.
        settings: which data root; the environment's by default.

    Raises:
        InputFileError: a named delivery is not known.
        SettingsError: the pipeline holds the warehouse.
    """
    settings = settings or get_settings()
    held = {one.key: one for one in read_held_deliveries(settings)}
    entries = [one for one in read_quarantine(Selection(reasons=frozenset(reasons)), settings) if reasons]
    wanted: dict[DeliveryKey, list[QuarantineEntry]] = defaultdict(list)
    for entry in entries:
        if entry.key is not None:
            wanted[entry.key].append(entry)
    for key in _named(deliveries, held):
        wanted.setdefault(key, [])
    result = ReplayResult()
    origins = read_origins(settings)
    tasks = {number: _Task(origin) for number, origin in enumerate(origins)}
    for task in tasks.values():
        for name in task.origin.paths:
            file = refused_file(task.origin, name, settings)
            if reasons and (lines := refused_lines(file, reasons)):
                task.lines[name] = lines
    for key, of_delivery in sorted(wanted.items()):
        made_from = _made_from(settings, held[key])
        if made_from is None:
            _tell_source(result, held[key], of_delivery)
            continue
        mine = [task for task in tasks.values() if _is_origin(task.origin, key, made_from)]
        if not mine:
            result.unrepaired.append(
                f"{key}: its original is not recorded, or another file of that name was landed since; "
                "land that file as it is now (cleanbill land)"
            )
        for task in mine[:1]:
            task.deliveries.add((key.extract, key.business_date))
    only_source = load_mapping(mapping).source if mapping is not None else None
    for task in tasks.values():
        if (task.deliveries or task.lines) and only_source in (None, task.origin.source):
            _land_again(result, task, mapping, settings)
    return result


def _named(names: Collection[str], held: dict[DeliveryKey, HeldDelivery]) -> list[DeliveryKey]:
    by_stem = {key.stem: key for key in held}
    keys = []
    for name in names:
        stem = Path(name).name.removesuffix(MANIFEST_SUFFIX)
        if stem not in by_stem:
            raise InputFileError(
                where=f"delivery {stem[:120]!r}",
                expected="a delivery that is in force or refused, by its name in landing/",
                found="none of that name",
                advice="cleanbill quarantine list names them; what was never taken in needs no replay",
            )
        keys.append(by_stem[stem])
    return keys


def _made_from(settings: Settings, delivery: HeldDelivery) -> list[str] | None:
    """Return the sha256 of the originals of a delivery made by a landing; None if a source sent it."""
    try:
        manifest = json.loads((settings.home / delivery.manifest_path).read_text(encoding="utf-8"))
        return [one["sha256"] for one in manifest["made_from"]] if manifest["made_by"] == MADE_BY else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_origin(origin: Origin, key: DeliveryKey, made_from: list[str]) -> bool:
    return origin.source == key.source and list(origin.sha256.values()) == made_from


def _tell_source(result: ReplayResult, delivery: HeldDelivery, entries: list[QuarantineEntry]) -> None:
    """A source's own bytes stay as they are: the next run tries refused ones again, records have to be resent."""
    key = delivery.key
    resend = f"source {key.source}: {key.extract} {key.business_date} as delivery {key.delivery + 1}"
    if delivery.status != ACCEPTED:
        result.retried.append(
            f"{key}: {delivery.reason_code or delivery.status}; after a change of policy_ingest.csv "
            f"`cleanbill run --from {key.business_date} --to {key.business_date}` may accept it, else {resend}"
        )
        return
    counts: dict[str, int] = defaultdict(int)
    for entry in entries:
        counts[entry.reason] += entry.rows
    reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(counts.items()))
    result.to_resend.append(resend + (f" ({reasons} of {delivery.rows_in:,} rows)" if reasons else ""))


def _land_again(result: ReplayResult, task: _Task, mapping: Path | None, settings: Settings) -> None:
    origin = task.origin
    try:
        for name, path in origin.paths.items():
            _require_unchanged(Path(path), origin.sha256[name])
        summary = land(
            mapping or origin.mapping,
            [Path(path) for path in origin.paths.values()],
            settings,
            date_from=origin.date_from,
            date_to=origin.date_to,
            repair=Repair(
                source=origin.source,
                deliveries=frozenset(task.deliveries),
                lines=task.lines,
                first_day=origin.first_day,
                last_day=origin.last_day,
            ),
        )
    except CleanbillError as error:
        result.unrepaired.append(
            f"source {origin.source}, {', '.join(Path(p).name for p in origin.paths.values())}: {error}"
        )
        return
    result.landed.append(summary)
    result.days |= {summary.first_day, summary.last_day}


def _require_unchanged(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise LandingRefused(
            "original_gone",
            str(path),
            "the original file, where it was when it was landed",
            "nothing",
            "put it back from the archive, then replay again; nothing was written",
        )
    if sha256_of(path) != sha256:
        raise LandingRefused(
            "original_changed",
            str(path),
            f"the original with sha256 {sha256}",
            "another content",
            "put the original back, or land the file as it is now (cleanbill land); nothing was written",
        )
