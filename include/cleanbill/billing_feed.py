"""The monthly billing feed: prepare, draft, approve, seal (4-billing-feed.md).

States are folders. `warehouse/billing/<YYYY-MM>/` (restricted) holds the frozen month, then `draft/`, then `approved/`;
sealing moves the approved folder to `exports/billing/<YYYY-MM>/v<n>/` by one rename. Version 1 holds the charges, every
later one what changed since. Every step may be killed at any point and done again: what is half done has a name nobody
reads, and is thrown away by the next try.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from cleanbill import feed_files, feed_snapshot, gates, ledger, releases
from cleanbill.build import build_scratch
from cleanbill.control import open_warehouse
from cleanbill.digests import deliveries_digest
from cleanbill.errors import FeedError
from cleanbill.feed_versions import (
    ACKS,
    ACKS_FOLDER_MODE,
    RELEASED_FILE,
    RELEASED_FOLDER,
    RESTRICTED_FOLDER,
    SealedVersion,
    approved_folder,
    draft_folder,
    feed_database,
    make_released_folder,
    sealed_folder,
    sealed_versions,
    working_folder,
)
from cleanbill.file_lock import alone
from cleanbill.masking import mask_text
from cleanbill.settings import Settings, get_settings

LONGEST_NAME = 80


@dataclass(frozen=True)
class PreparedMonth:
    """A frozen month, ready for the export gate.

    Attributes:
        month: first day of billing month M.
        version: the version it would become.
        as_of: A of that version: for version 1 the last day of M−1.
        database: the frozen file with charges, exclusions, settlement, inputs, dispositions, adjustments.
        built_from: `warehouse` or `scratch`.
        is_unchanged: the month is sealed and no charge line differs from the sum of its versions: nothing to do.
        charges: number of charge lines as they stand at A.
        charged_li: their sum in li.
        exclusions: number of live relations that are not charged.
        adjustments: number of lines that differ from the sum of the sealed versions; 0 before version 1.
        adjusted_li: the sum of their differences in li.
    """

    month: date
    version: int
    as_of: date
    database: Path
    built_from: str
    is_unchanged: bool
    charges: int
    charged_li: int
    exclusions: int
    adjustments: int
    adjusted_li: int


def prepare_month(month: date, run_id: str | None = None) -> PreparedMonth:
    """Freeze billing month M into feed.duckdb: as of the last day of M−1, or once it is sealed as of now.

    The warehouse itself serves when it holds exactly that state, else a scratch build of the same models.

    Args:
        month: first day of M.
        run_id: the run under which the gates of the build are asked for, so that no bill comes from marts that were
            never judged (a scratch build, or a warehouse whose gate was red); None: not asked.

    Raises:
        BillingBlocked: inputs the month needs are missing or undecided; the message names them.
        GateFailed: a critical expectation on the build is not met.
        FeedError: a sealed version was damaged, or was made under another pseudonym key.
    """
    settings = get_settings()
    with _month_to_myself(month, settings):
        base = _read_base(month, settings)
        with open_warehouse(settings) as connection:
            if base:
                as_of = feed_snapshot.adjustment_as_of(connection, settings, date.fromisoformat(base[-1][1]["as_of"]))
            else:
                as_of = feed_snapshot.billing_as_of(month)
                feed_snapshot.require_inputs(connection, month)
            serves = feed_snapshot.warehouse_serves(connection, as_of, settings)
        source = None if serves else build_scratch(as_of)
        database = feed_database(month, settings)
        fresh = database.with_name("freezing.duckdb")
        for leftover in (fresh, fresh.with_name(fresh.name + ".wal")):
            leftover.unlink(missing_ok=True)
        try:
            with open_warehouse(settings, path=source, read_only=True) as connection:
                feed_snapshot.require_unblocked(connection, month)
            if run_id is not None:
                _require_gated(source, run_id, settings)
            frozen = feed_snapshot.freeze_month(source, fresh, month, settings, as_of, base)
        finally:
            if source is not None:  # it holds true numbers and as much as a warehouse; a later try builds it anew
                source.unlink(missing_ok=True)
        fresh.replace(database)
        feed_files.flush_folder(database.parent)
        is_unchanged = bool(base) and frozen.adjustments == 0
        if is_unchanged:  # what waits was made of something that is no longer so
            _withdraw_approval(month, "no charge line differs from the sealed versions any more", run_id, settings)
            _discard(draft_folder(month, settings))
            releases.record_unchanged(base[-1][0], as_of, run_id, settings)
        return PreparedMonth(
            month=month,
            version=len(base) + 1,
            as_of=as_of,
            database=database,
            built_from="warehouse" if serves else "scratch",
            is_unchanged=is_unchanged,
            charges=frozen.charges,
            charged_li=frozen.charged_li,
            exclusions=frozen.exclusions,
            adjustments=frozen.adjustments,
            adjusted_li=frozen.adjusted_li,
        )


def _read_base(month: date, settings: Settings) -> list[tuple[SealedVersion, dict[str, Any]]]:
    """Return the sealed versions of a month with their manifests, every file of them checked.

    Raises:
        FeedError: one is missing or damaged, or its ids were made under another key than today's.
    """
    base = []
    for sealed in sealed_versions(month, settings):
        manifest, _ = feed_files.verify_version(sealed.folder)
        if manifest["digests"].get("key", key := feed_files.key_digest(settings)) != key:
            raise FeedError(
                where=str(sealed.folder),
                expected="subscription ids made under the pseudonym key of today",
                found="ids made under another key: every line would look withdrawn and ordered anew",
                advice="adjust this month under the key it was billed with (CLEANBILL_PSEUDONYM_KEY)",
            )
        base.append((sealed, manifest))
    releases.record_missing(month, settings)
    return base


def _require_gated(source: Path | None, run_id: str, settings: Settings) -> None:
    """Check the build unless the newest verdict on exactly these marts is green already."""
    if source is not None:
        gates.check("staging", run_id, database=source)
        gates.check("marts", run_id, database=source)
        return
    with open_warehouse(settings, read_only=True) as connection:
        newest = connection.execute(
            """
            select passed
            from control.gate_records
            where stage = 'marts' and state_digest = $state
            order by checked_at desc, run_id desc
            limit 1
            """,
            {"state": gates.state_digest("marts", connection)},
        ).fetchone()
    if newest is None or not newest[0]:
        gates.check("marts", run_id)


def draft_feed(month: date, run_id: str | None = None) -> Path:
    """Write the draft of a prepared month and return its folder.

    An earlier draft is replaced. An approved feed with the same manifest stands (its folder is returned); one with
    another manifest loses its approval, because somebody approved other content.

    Args:
        month: first day of M.
        run_id: the run whose export gate must have passed for exactly the frozen rows; None: not asked.

    Raises:
        GateFailed: the export gate of that run is absent, red, or saw other rows.
        FeedError: the month is not prepared, nothing changed since it was sealed, another version was sealed since it
            was prepared, or a field is not fit for a machine feed.
    """
    settings = get_settings()
    with _month_to_myself(month, settings) as folder:
        database = feed_database(month, settings)
        if not database.exists():
            raise FeedError(
                where=str(database),
                expected="the frozen month",
                found="no such file",
                advice=f"`cleanbill bill {month:%Y-%m}` prepares it",
            )
        base = _named_base(month, settings)
        _require_something_to_draft(database, month, len(base), settings)
        if run_id is not None:
            with open_warehouse(settings, path=database, read_only=True) as connection:
                gates.require_green("export", run_id, connection, settings)
        drafting = folder / "drafting"
        drafting.mkdir(RESTRICTED_FOLDER)
        feed_files.write_version(database, drafting, month, settings, base)
        _, manifest_sha256 = feed_files.read_manifest(drafting)
        approved, draft = approved_folder(month, settings), draft_folder(month, settings)
        if approved.exists():
            if feed_files.read_manifest(approved)[1] == manifest_sha256:
                _discard(drafting)
                return approved
            _withdraw_approval(month, "a draft with other content took its place", run_id, settings)
        _discard(draft)
        drafting.rename(draft)
        feed_files.flush_folder(folder)
        return draft


def _named_base(month: date, settings: Settings) -> list[dict[str, Any]]:
    """Return version and manifest sha256 of the sealed versions: what the next one adjusts."""
    return [
        {"manifest_sha256": feed_files.read_manifest(sealed.folder)[1], "version": sealed.version}
        for sealed in sealed_versions(month, settings)
    ]


def _require_something_to_draft(database: Path, month: date, sealed: int, settings: Settings) -> None:
    with open_warehouse(settings, path=database, read_only=True) as connection:
        version = connection.execute("select version from feed_info").fetchone()[0]
        adjustments = connection.execute("select count(*) from adjustments").fetchone()[0]
    if version != sealed + 1:
        found = f"version {version} was frozen, and version {sealed} is sealed by now"
    elif version > 1 and adjustments == 0:
        found = f"no adjustment: every line is what the {sealed} sealed versions add up to"
    else:
        return
    raise FeedError(
        where=str(database),
        expected="a frozen month with something to release",
        found=found,
        advice=f"`cleanbill bill {month:%Y-%m}` prepares it anew, and ends as skipped if nothing changed",
    )


def approve_feed(month: date, approver: str | None, auto: bool = False, run_id: str | None = None) -> Path:
    """Approve the draft of a month for release and return the approved folder.

    Args:
        month: first day of M.
        approver: who releases it; a second person's act. Not needed with `auto`.
        auto: released without a person (unattended demos); approval.json says so.
        run_id: the run that approves, for the ledger.

    Raises:
        FeedError: no draft, a draft that was changed, is older than its inputs or adjusts other versions than the
            sealed ones, or no approver.
    """
    settings = get_settings()
    name = _approver_name(approver, auto)
    with _month_to_myself(month, settings) as folder:
        draft, approved = draft_folder(month, settings), approved_folder(month, settings)
        if approved.exists() and not draft.exists():
            _require_approval(approved)
            releases.record_approval(approved, run_id, settings)
            return approved
        if not draft.exists():
            releases.record_missing(month, settings)
            _refuse_without_draft(draft, month, settings)
        manifest, manifest_sha256 = feed_files.verify_version(draft)
        _require_base(draft, manifest, month, settings)
        _require_fresh(draft, manifest, month, settings)
        approval = {
            "approved_at": datetime.now(ledger.ZONE).isoformat(timespec="seconds"),
            "approved_by": name,
            "billing_month": f"{month:%Y-%m}",
            "is_automatic": auto,
            "ledger": ledger.head(settings),
            "manifest_sha256": manifest_sha256,
            "note": "released unattended by --auto-approve; no person looked at it" if auto else "released by a person",
            "os_user": ledger.os_user(),
            "version": manifest["version"],
        }
        feed_files.write_text(draft / feed_files.APPROVAL, feed_files.as_json(approval))
        _withdraw_approval(month, "another draft was approved", run_id, settings)
        draft.rename(approved)
        feed_files.flush_folder(folder)
        releases.record_approval(approved, run_id, settings)
        return approved


def _refuse_without_draft(draft: Path, month: date, settings: Settings) -> None:
    sealed = sealed_versions(month, settings)
    raise FeedError(
        where=str(draft),
        expected="a draft to approve",
        found=f"version {sealed[-1].version}, which never changes" if sealed else "none",
        advice=f"`cleanbill bill {month:%Y-%m}` writes one" + (" if a charge line changed since" if sealed else ""),
    )


def seal_feed(month: date, run_id: str | None = None) -> Path:
    """Release the approved feed of a month by one rename, write it into the ledger and return its folder.

    Done again after it was sealed it changes nothing.

    Raises:
        FeedError: nothing approved, the approval is for another manifest, a file was changed, or the versions it
            adjusts are not the sealed ones.
    """
    settings = get_settings()
    with _month_to_myself(month, settings) as folder:
        approved = approved_folder(month, settings)
        versions = sealed_versions(month, settings)
        if not approved.exists():
            if versions and not draft_folder(month, settings).exists():
                feed_files.verify_version(versions[-1].folder)
                releases.record_missing(month, settings)
                return versions[-1].folder
            raise FeedError(
                where=str(approved),
                expected="an approved feed",
                found="a draft that waits for approval" if draft_folder(month, settings).exists() else "none",
                advice=f"`cleanbill bill {month:%Y-%m} --approver NAME` releases a draft",
            )
        manifest, manifest_sha256 = _require_approval(approved)
        if versions and feed_files.verify_version(versions[-1].folder)[1] == manifest_sha256:
            _discard(approved)
            return versions[-1].folder
        _require_base(approved, manifest, month, settings)
        releases.record_approval(approved, run_id, settings)
        sealed = sealed_folder(month, manifest["version"], settings)
        _make_released_month(sealed.parent, settings)
        feed_files.write_text(approved / feed_files.SUCCESS, manifest_sha256 + "\n")
        for path in approved.iterdir():
            path.chmod(RELEASED_FILE)
        approved.chmod(RELEASED_FOLDER)
        feed_files.flush_folder(approved)
        approved.rename(sealed)
        feed_files.flush_folder(sealed.parent)
        feed_files.flush_folder(folder)
        releases.record_missing(month, settings, run_id)
        return sealed


def _approver_name(approver: str | None, auto: bool) -> str | None:
    name = (approver or "").strip()
    if auto and not name:
        return None
    if name and len(name) <= LONGEST_NAME and name.isprintable() and mask_text(name) == name:
        return name
    raise FeedError(
        where="approver",
        expected=f"the name of the person who releases the feed (1 to {LONGEST_NAME} printable characters, no number)",
        found=f"{len(name)} characters",
        advice="give --approver NAME, or --auto-approve in an unattended demo",
    )


def _require_approval(approved: Path) -> tuple[dict[str, Any], str]:
    """Check files, manifest and approval against each other; return the manifest and its sha256."""
    manifest, manifest_sha256 = feed_files.verify_version(approved)
    path = approved / feed_files.APPROVAL
    approval = feed_files.read_approval(approved)
    approved_sha256 = approval["manifest_sha256"]
    if approved_sha256 != manifest_sha256:
        raise FeedError(
            where=str(path),
            expected=f"an approval of manifest sha256 {manifest_sha256}",
            found=f"one of {approved_sha256}",
            advice="the feed was changed after its approval: draft and approve it again",
        )
    if approval["version"] != manifest["version"]:
        raise FeedError(
            where=str(path),
            expected=f"an approval of version {manifest['version']}",
            found=f"one of version {approval.get('version')}",
            advice="draft and approve it again",
        )
    return manifest, manifest_sha256


def _require_base(folder: Path, manifest: dict[str, Any], month: date, settings: Settings) -> None:
    """Refuse a version that does not follow on the sealed ones: it would adjust what was billed otherwise."""
    base = _named_base(month, settings)
    if manifest["version"] == len(base) + 1 and manifest.get("adjusts", []) == base:
        return
    raise FeedError(
        where=str(folder),
        expected=f"version {len(base) + 1}, made on top of " + (f"the sealed v{len(base)}" if base else "nothing"),
        found=f"version {manifest['version']}, made before the sealed versions were what they are now",
        advice=f"`cleanbill bill {month:%Y-%m}` drafts the difference that is left; look at it, then release that one",
    )


def _require_fresh(draft: Path, manifest: dict, month: date, settings: Settings) -> None:
    """Refuse a draft whose inputs are no longer those in force: nobody may release what is known to be old."""
    with open_warehouse(settings, read_only=True) as connection:
        now = deliveries_digest(connection, date.fromisoformat(manifest["as_of"]))
    if now != manifest["digests"]["inputs"]:
        raise FeedError(
            where=str(draft),
            expected="a draft made of the deliveries in force now",
            found="deliveries that came or were replaced after it was written",
            advice=f"`cleanbill bill {month:%Y-%m}` writes it anew; look at it, then release that one",
        )


def _withdraw_approval(month: date, reason: str, run_id: str | None, settings: Settings) -> None:
    """Take back the approval of a month that is not sealed yet, if there is one; the ledger says why."""
    approved = approved_folder(month, settings)
    if approved.exists():
        releases.record_withdrawal(approved, reason, run_id, settings)
        _discard(approved)


def _make_released_month(folder: Path, settings: Settings) -> None:
    """Create `exports/billing/<YYYY-MM>` and the folder for the consumer's answers."""
    make_released_folder(folder, settings)
    acks = folder / ACKS
    acks.mkdir(exist_ok=True)
    acks.chmod(ACKS_FOLDER_MODE)
    if folder.stat().st_dev != settings.warehouse_folder.stat().st_dev:
        raise FeedError(
            where=str(folder),
            expected="exports/ and warehouse/ on one filesystem, so that a version appears by one rename",
            found="two filesystems",
            advice="keep the whole data root on one volume",
        )


def _discard(folder: Path) -> None:
    """Remove a folder; its name disappears at once, so a kill leaves no half folder under a name that is read."""
    if not folder.exists():
        return
    doomed = folder.with_name(f"discarded-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


@contextmanager
def _month_to_myself(month: date, settings: Settings) -> Iterator[Path]:
    """Hold the lock of a month's working folder and tidy it.

    Raises:
        FeedError: another process works on the month for too long.
    """
    folder = working_folder(month, settings)
    folder.mkdir(parents=True, exist_ok=True)
    for restricted in (folder.parent, folder):
        restricted.chmod(RESTRICTED_FOLDER)
    with alone(folder / ".lock", f"billing {month:%Y-%m}"):
        for leftover in (folder / "drafting", *folder.glob("discarded-*")):
            if leftover.exists():
                shutil.rmtree(leftover)
        for half_written in folder.glob("*/*.writing"):
            half_written.unlink()
        yield folder
