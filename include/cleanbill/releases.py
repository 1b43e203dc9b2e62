"""What the ledger says about released feeds; a line that a kill prevented is written by whatever step comes next."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

from cleanbill import feed_files, ledger, sealed_lines
from cleanbill.errors import FeedError
from cleanbill.feed_versions import SealedVersion, sealed_versions
from cleanbill.settings import Settings

APPROVED = "approved"
AUTO_APPROVED = "auto_approved"
WITHDRAWN = "approval_withdrawn"
SEALED = "sealed"
WAIVER_USED = "waiver_used"
UNCHANGED = "unchanged"


def subject_of(manifest: dict[str, Any], manifest_sha256: str) -> dict[str, Any]:
    """Return what ledger lines about one version name."""
    return {
        "billing_month": manifest["billing_month"],
        "manifest_sha256": manifest_sha256,
        "version": manifest["version"],
    }


def approval_sha256(folder: Path) -> str:
    """Return the sha256 of a version's approval.json: the manifest does not cover it, so the ledger does."""
    return hashlib.sha256((folder / feed_files.APPROVAL).read_bytes()).hexdigest()


def record_approval(folder: Path, run_id: str | None, settings: Settings) -> None:
    """Write the approval of an approved or sealed folder into the ledger, unless it stands there.

    Raises:
        FeedError: another approval of the same manifest stands there last: approval.json was changed since.
    """
    manifest, manifest_sha256 = feed_files.read_manifest(folder)
    subject = subject_of(manifest, manifest_sha256)
    approval = feed_files.read_approval(folder)
    digest = approval_sha256(folder)
    acts = (APPROVED, AUTO_APPROVED, WITHDRAWN)
    known = [entry for entry in ledger.entries(settings) if entry["object"] == subject and entry["action"] in acts]
    if known and known[-1]["action"] != WITHDRAWN and known[-1]["details"]["approval_sha256"] != digest:
        raise FeedError(
            where=str(folder / feed_files.APPROVAL),
            expected=f"the approval of the ledger, line {known[-1]['seq']}",
            found="another one",
            advice="find out who changed it; then draft and approve the month again",
        )
    ledger.record(
        AUTO_APPROVED if approval["is_automatic"] else APPROVED,
        subject,
        details={"approval_sha256": digest},
        person=approval["approved_by"],
        reason=approval["note"],
        run_id=run_id,
        settings=settings,
    )


def record_withdrawal(folder: Path, reason: str, run_id: str | None, settings: Settings) -> None:
    """Write into the ledger that an approval no longer counts."""
    manifest, manifest_sha256 = feed_files.read_manifest(folder)
    ledger.record(
        WITHDRAWN,
        subject_of(manifest, manifest_sha256),
        details={"approval_sha256": approval_sha256(folder)},
        reason=reason,
        run_id=run_id,
        settings=settings,
    )


def record_unchanged(sealed: SealedVersion, as_of: date, run_id: str | None, settings: Settings) -> None:
    """Write into the ledger that a month was looked at again as of a later day and nothing was to be adjusted."""
    subject = subject_of(*feed_files.read_manifest(sealed.folder))
    ledger.record(UNCHANGED, subject, details={"as_of": f"{as_of}"}, run_id=run_id, settings=settings)


def record_missing(month: date, settings: Settings, run_id: str | None = None) -> None:
    """Write every line about the sealed versions of a month that the ledger lacks (new ones, or after a kill).

    Raises:
        FeedError: a version is not the one the ledger says was sealed; nothing may be added on top of it.
    """
    versions = sealed_versions(month, settings)
    if not versions:
        return
    known = {
        (entry["object"].get("billing_month"), entry["object"].get("version")): entry["object"]["manifest_sha256"]
        for entry in ledger.entries(settings)
        if entry["action"] == SEALED
    }
    for sealed in versions:
        recorded = known.get((f"{month:%Y-%m}", sealed.version))
        if recorded is None:
            _record_release(sealed, run_id, settings)
            continue
        _, found = feed_files.read_manifest(sealed.folder)
        if found != recorded:
            raise FeedError(
                where=str(sealed.folder / feed_files.MANIFEST),
                expected=f"the manifest that was sealed, sha256 {recorded}",
                found=f"sha256 {found}",
                advice=feed_files.DAMAGED,
            )


def _record_release(sealed: SealedVersion, run_id: str | None, settings: Settings) -> None:
    manifest, manifest_sha256 = feed_files.read_manifest(sealed.folder)
    subject = subject_of(manifest, manifest_sha256)
    record_approval(sealed.folder, run_id, settings)
    for waiver in manifest["waivers"]:
        ledger.record(WAIVER_USED, subject, details=waiver, reason=waiver["reason"], run_id=run_id, settings=settings)
    lines = sealed_lines.line_files(manifest)
    ledger.record(
        SEALED,
        subject,
        details={
            "approval_sha256": approval_sha256(sealed.folder),
            "as_of": manifest["as_of"],
            "delta_li": sealed_lines.total_li(manifest),
            "lines": sum(entry["rows"] for entry in lines),
        },
        run_id=run_id,
        settings=settings,
    )
