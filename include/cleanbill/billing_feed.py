"""The monthly billing feed: prepare, draft, approve, seal (4-billing-feed.md).

States are folders. `warehouse/billing/<YYYY-MM>/` (restricted) holds the frozen month, then `draft/`, then `approved/`;
sealing moves the approved folder to `exports/billing/<YYYY-MM>/v1/` by one rename. Every step may be killed at any
point and done again: what is half done has a name nobody reads, and is thrown away by the next try.
"""

import fcntl
import getpass
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from cleanbill import feed_files, feed_snapshot, gates
from cleanbill.build import build_scratch
from cleanbill.control import open_warehouse
from cleanbill.digests import deliveries_digest
from cleanbill.errors import FeedError
from cleanbill.settings import Settings, get_settings

ZONE = ZoneInfo("Asia/Shanghai")
RESTRICTED_FOLDER = 0o700
RELEASED_FOLDER = 0o750
RELEASED_FILE = 0o640
LOCK_WAIT_SECONDS = 120
LONGEST_NAME = 80


@dataclass(frozen=True)
class PreparedMonth:
    """A frozen month, ready for the export gate.

    Attributes:
        month: first day of billing month M.
        as_of: A of version 1, the last day of M−1.
        database: the frozen file with charges, exclusions, settlement, inputs, dispositions.
        built_from: `warehouse` or `scratch`.
        is_unchanged: version 1 is sealed already with the same charge lines and inputs; nothing is left to do.
        charges: number of charge lines.
        charged_li: their sum in li.
        exclusions: number of live relations that are not charged.
    """

    month: date
    as_of: date
    database: Path
    built_from: str
    is_unchanged: bool
    charges: int
    charged_li: int
    exclusions: int


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


def sealed_folder(month: date, version: int = 1, settings: Settings | None = None) -> Path:
    """Return the folder the consumer reads."""
    return (settings or get_settings()).exports / "billing" / f"{month:%Y-%m}" / f"v{version}"


def prepare_month(month: date, run_id: str | None = None) -> PreparedMonth:
    """Freeze billing month M as of the last day of M−1 into feed.duckdb.

    The warehouse itself serves when it holds exactly that state, else a scratch build of the same models.

    Args:
        month: first day of M.
        run_id: the run under which the gates of the build are asked for, so that no bill comes from marts that were
            never judged (a scratch build, or a warehouse whose gate was red); None: not asked.

    Raises:
        BillingBlocked: inputs the month needs are missing or undecided; the message names them.
        GateFailed: a critical expectation on the build is not met.
        FeedError: version 1 is sealed and its inputs or lines would differ now; it is left as it is.
    """
    settings = get_settings()
    as_of = feed_snapshot.billing_as_of(month)
    with _month_to_myself(month, settings):
        with open_warehouse(settings) as connection:
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
            frozen = feed_snapshot.freeze_month(source, fresh, month, settings)
        finally:
            if source is not None:  # it holds true numbers and as much as a warehouse; a later try builds it anew
                source.unlink(missing_ok=True)
        fresh.replace(database)
        feed_files.flush_folder(database.parent)
        return PreparedMonth(
            month=month,
            as_of=as_of,
            database=database,
            built_from="warehouse" if serves else "scratch",
            is_unchanged=_is_sealed_unchanged(month, settings),
            charges=frozen.charges,
            charged_li=frozen.charged_li,
            exclusions=frozen.exclusions,
        )


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


def _is_sealed_unchanged(month: date, settings: Settings) -> bool:
    """Tell whether version 1 exists with the lines and inputs frozen now; False when nothing is sealed yet.

    Raises:
        FeedError: it exists and differs, or its files were tampered with.
    """
    sealed = sealed_folder(month, settings=settings)
    if not sealed.exists():
        return False
    manifest, _ = feed_files.verify_version(sealed)
    database = feed_database(month, settings)
    changed_inputs = feed_files.count_changed_inputs(database, sealed)
    changed_lines = feed_files.count_changed_lines(database, sealed, month)
    if not changed_inputs and not changed_lines:
        return True
    raise FeedError(
        where=str(sealed),
        expected=f"the inputs and charge lines it was sealed with (as of {manifest['as_of']})",
        found=f"{changed_inputs} changed deliveries and {changed_lines} changed charge lines since",
        advice="version 1 stays as it is: what changed after sealing is billed by an adjustment version (v2 and on)",
    )


def draft_feed(month: date, run_id: str | None = None) -> Path:
    """Write the draft of a prepared month and return its folder.

    An earlier draft is replaced. An approved feed with the same manifest stands (its folder is returned); one with
    another manifest loses its approval, because somebody approved other content.

    Args:
        month: first day of M.
        run_id: the run whose export gate must have passed for exactly the frozen rows; None: not asked.

    Raises:
        GateFailed: the export gate of that run is absent, red, or saw other rows.
        FeedError: the month is not prepared, version 1 is sealed, or a field is not fit for a machine feed.
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
        _refuse_if_sealed(month, settings, "a draft")
        if run_id is not None:
            with open_warehouse(settings, path=database, read_only=True) as connection:
                gates.require_green("export", run_id, connection, settings)
        drafting = folder / "drafting"
        drafting.mkdir(RESTRICTED_FOLDER)
        feed_files.write_version(database, drafting, month, settings)
        _, manifest_sha256 = feed_files.read_manifest(drafting)
        approved, draft = approved_folder(month, settings), draft_folder(month, settings)
        if approved.exists():
            if feed_files.read_manifest(approved)[1] == manifest_sha256:
                _discard(drafting)
                return approved
            _discard(approved)
        _discard(draft)
        drafting.rename(draft)
        feed_files.flush_folder(folder)
        return draft


def approve_feed(month: date, approver: str | None, auto: bool = False) -> Path:
    """Approve the draft of a month for release and return the approved folder.

    Args:
        month: first day of M.
        approver: who releases it; a second person's act. Not needed with `auto`.
        auto: released without a person (unattended demos); approval.json says so.

    Raises:
        FeedError: no draft, a draft that was changed or is older than its inputs, or no approver.
    """
    settings = get_settings()
    name = _approver_name(approver, auto)
    with _month_to_myself(month, settings) as folder:
        draft, approved = draft_folder(month, settings), approved_folder(month, settings)
        if approved.exists() and not draft.exists():
            _require_approval(approved)
            return approved
        if not draft.exists():
            _refuse_if_sealed(month, settings, "an approval")
            raise FeedError(
                where=str(draft),
                expected="a draft to approve",
                found="none",
                advice=f"`cleanbill bill {month:%Y-%m}` writes it",
            )
        manifest, manifest_sha256 = feed_files.verify_version(draft)
        _require_fresh(draft, manifest, month, settings)
        approval = {
            "approved_at": datetime.now(ZONE).isoformat(timespec="seconds"),
            "approved_by": name,
            "billing_month": f"{month:%Y-%m}",
            "is_automatic": auto,
            "manifest_sha256": manifest_sha256,
            "note": "released unattended by --auto-approve; no person looked at it" if auto else "released by a person",
            "os_user": _os_user(),
            "version": 1,
        }
        feed_files.write_text(draft / feed_files.APPROVAL, feed_files.as_json(approval))
        _discard(approved)
        draft.rename(approved)
        feed_files.flush_folder(folder)
        return approved


def seal_feed(month: date) -> Path:
    """Release the approved feed of a month as version 1 by one rename and return its folder.

    Done again after it was sealed it changes nothing.

    Raises:
        FeedError: nothing approved, the approval is for another manifest, a file was changed, or another
            version 1 is sealed already.
    """
    settings = get_settings()
    with _month_to_myself(month, settings) as folder:
        approved, sealed = approved_folder(month, settings), sealed_folder(month, settings=settings)
        if not approved.exists():
            if sealed.exists():
                feed_files.verify_version(sealed)
                return sealed
            raise FeedError(
                where=str(approved),
                expected="an approved feed",
                found="a draft that waits for approval" if draft_folder(month, settings).exists() else "none",
                advice=f"`cleanbill bill {month:%Y-%m} --approver NAME` releases a draft",
            )
        manifest_sha256 = _require_approval(approved)
        if sealed.exists():
            if feed_files.verify_version(sealed)[1] == manifest_sha256:
                _discard(approved)
                return sealed
            _refuse_if_sealed(month, settings, "another version 1")
        _make_released_folder(sealed.parent, settings)
        feed_files.write_text(approved / feed_files.SUCCESS, manifest_sha256 + "\n")
        for path in approved.iterdir():
            path.chmod(RELEASED_FILE)
        approved.chmod(RELEASED_FOLDER)
        feed_files.flush_folder(approved)
        approved.rename(sealed)
        feed_files.flush_folder(sealed.parent)
        feed_files.flush_folder(folder)
        return sealed


def _approver_name(approver: str | None, auto: bool) -> str | None:
    name = (approver or "").strip()
    if auto and not name:
        return None
    if name and len(name) <= LONGEST_NAME and name.isprintable():
        return name
    raise FeedError(
        where="approver",
        expected=f"the name of the person who releases the feed (1 to {LONGEST_NAME} printable characters)",
        found=f"{len(name)} characters",
        advice="give --approver NAME, or --auto-approve in an unattended demo",
    )


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container user without a name
        return f"uid {os.getuid()}"


def _require_approval(approved: Path) -> str:
    """Check files, manifest and approval against each other; return the manifest's sha256."""
    _, manifest_sha256 = feed_files.verify_version(approved)
    path = approved / feed_files.APPROVAL
    try:
        approved_sha256 = json.loads(path.read_bytes())["manifest_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FeedError(
            where=str(path), expected="an approval", found=type(error).__name__, advice="approve the draft again"
        ) from error
    if approved_sha256 != manifest_sha256:
        raise FeedError(
            where=str(path),
            expected=f"an approval of manifest sha256 {manifest_sha256}",
            found=f"one of {approved_sha256}",
            advice="the feed was changed after its approval: draft and approve it again",
        )
    return manifest_sha256


def _require_fresh(draft: Path, manifest: dict, month: date, settings: Settings) -> None:
    """Refuse a draft whose inputs are no longer those in force: nobody may release what is known to be old."""
    with open_warehouse(settings, read_only=True) as connection:
        now = deliveries_digest(connection, feed_snapshot.billing_as_of(month))
    if now != manifest["digests"]["inputs"]:
        raise FeedError(
            where=str(draft),
            expected="a draft made of the deliveries in force now",
            found="deliveries that came or were replaced after it was written",
            advice=f"`cleanbill bill {month:%Y-%m}` writes it anew; look at it, then release that one",
        )


def _refuse_if_sealed(month: date, settings: Settings, what: str) -> None:
    sealed = sealed_folder(month, settings=settings)
    if sealed.exists():
        raise FeedError(
            where=str(sealed),
            expected=f"a month that is not sealed yet, for {what}",
            found="version 1, which never changes",
            advice="what changed after sealing is billed by an adjustment version (v2 and on)",
        )


def _make_released_folder(folder: Path, settings: Settings) -> None:
    """Create `exports/billing/<YYYY-MM>` readable by the consumer's group and make each new name durable."""
    missing = []
    current = folder
    while not current.exists():
        missing.append(current)
        current = current.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(RELEASED_FOLDER)
        feed_files.flush_folder(path.parent)
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
    """Hold the lock of a month's working folder (freed by the system when the process dies) and tidy it.

    Raises:
        FeedError: another process works on the month for longer than LOCK_WAIT_SECONDS.
    """
    folder = working_folder(month, settings)
    folder.mkdir(parents=True, exist_ok=True)
    for restricted in (folder.parent, folder):
        restricted.chmod(RESTRICTED_FOLDER)
    descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, feed_files.RESTRICTED_FILE)
    try:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise FeedError(
                        where=str(folder),
                        expected="to work on the month alone",
                        found=f"another process held it for {LOCK_WAIT_SECONDS} s",
                        advice="wait for the other run of this month, then try again",
                    ) from error
                time.sleep(0.1)
        for leftover in (folder / "drafting", *folder.glob("discarded-*")):
            if leftover.exists():
                shutil.rmtree(leftover)
        for half_written in folder.glob("*/*.writing"):
            half_written.unlink()
        yield folder
    finally:
        os.close(descriptor)
