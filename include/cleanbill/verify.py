"""Verify what was released: ledger, approvals, manifests, every byte and every sum, and what analysts see of it.

Reads only, and reads for itself: files are hashed, unpacked and added up here, not by the code that wrote them.
"""

import contextlib
import gzip
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from cleanbill import acknowledgements, feed_files, ledger, releases, sealed_lines, verify_copies
from cleanbill.errors import CleanbillError, FeedError, SettingsError
from cleanbill.feed_versions import (
    ACKS,
    VERSION_NAME,
    SealedVersion,
    numbers_in,
    released_folder,
    released_months,
    sealed_versions,
)
from cleanbill.masking import mask_name
from cleanbill.published_tables import BILLED_CHARGES
from cleanbill.settings import Settings, get_settings

CHUNK = 1 << 20
WRITER_SECONDS = 0.3  # a line of the ledger is written in less
FEE_COLUMNS = {"charges": "fee_li", "adjustments": "fee_li", "exclusions": "fee_li"}
COLUMNS = {
    "charges": feed_files.CHARGE_COLUMNS,
    "adjustments": feed_files.ADJUSTMENT_COLUMNS,
    "exclusions": feed_files.EXCLUSION_COLUMNS,
    "settlement": feed_files.SETTLEMENT_COLUMNS,
    "inputs": feed_files.INPUT_COLUMNS,
}


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was released; `path` is relative to the data root."""

    path: str
    text: str


@dataclass
class Verification:
    """What was looked at, and everything that was found wrong; `notes` say what could not be looked at."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: int = 0
    files: int = 0
    lines: int = 0
    ledger_entries: int = 0


def verify(month: date | None = None, settings: Settings | None = None) -> Verification:
    """Check everything that was released, or one month of it (and always the whole ledger)."""
    settings = settings or get_settings()
    run = _Run(settings, month)
    run.check_ledger()
    for one in run.months:
        run.check_month(one)
    if month is None:
        for path, text in verify_copies.reminder_problems(settings.exports / "reminders"):
            run.find(path, text)
    return run.result


class _Run:
    """One verification: the ledger as read, and what was found."""

    def __init__(self, settings: Settings, month: date | None) -> None:
        self.settings = settings
        self.is_whole = month is None
        self.months = released_months(settings) if month is None else [month]
        self.result = Verification()
        self.entries: list[ledger.Entry] | None = None  # None: the ledger is not to be trusted
        self._seen_inputs: dict[str, str] = {}

    def find(self, path: Path, text: str) -> None:
        """Note a finding; the names of files are made by others too, so they are shown like any foreign text."""
        shown = path.relative_to(self.settings.home) if path.is_relative_to(self.settings.home) else path
        self.result.findings.append(Finding(mask_name(str(shown)), text))

    # --- ledger ------------------------------------------------------------------------------------------------

    def check_ledger(self) -> None:
        problems = ledger.check(self.settings)
        if problems:  # perhaps somebody was just writing
            time.sleep(WRITER_SECONDS)
            problems = ledger.check(self.settings)
        for problem in problems:
            self.find(self.settings.exports / problem.file, problem.text)
        if problems:
            return
        self.entries = ledger.read(self.settings)
        self.result.ledger_entries = len(self.entries)
        for entry in self.entries:
            about, version = entry["object"].get("billing_month"), entry["object"].get("version")
            if entry["action"] != releases.SEALED or (not self.is_whole and about != f"{self.months[0]:%Y-%m}"):
                continue
            folder = self.settings.exports / "billing" / about / f"v{version}"
            if not folder.is_dir():
                self.find(folder, f"is missing; the ledger, line {entry['seq']}, says it was sealed")

    def _sealed_entry(self, sealed: SealedVersion) -> ledger.Entry | None:
        subject = (f"{sealed.month:%Y-%m}", sealed.version)
        for entry in self.entries or []:
            about = entry["object"]
            if entry["action"] == releases.SEALED and (about["billing_month"], about["version"]) == subject:
                return entry
        return None

    # --- a month -----------------------------------------------------------------------------------------------

    def check_month(self, month: date) -> None:
        folder = released_folder(month, self.settings)
        if not folder.is_dir():
            self.find(folder, "nothing was released for this month")
            return
        for path in sorted(folder.iterdir()):
            is_known = path.name == ACKS or VERSION_NAME.fullmatch(path.name)
            if path.is_symlink() or not path.is_dir() or not is_known:
                self.find(path, "expected version folders and acks/ only")
        numbers = sorted(numbers_in(folder))
        if not numbers:  # a release that was stopped before its rename leaves the folder of the month
            if not self.is_whole:
                self.find(folder, "nothing was released for this month")
            return
        for missing in sorted(set(range(1, max(numbers, default=0))) - set(numbers)):
            self.find(folder / f"v{missing}", "is missing, though a later version is there")
        versions = [SealedVersion(month, number, folder / f"v{number}") for number in numbers]
        manifests: list[tuple[SealedVersion, dict[str, Any]]] = []
        digests: list[dict[str, Any]] = []
        for sealed in versions:
            before = len(self.result.findings)
            manifest, digest = self._check_version(sealed, digests)
            digests.append({"manifest_sha256": digest, "version": sealed.version})
            if manifest is not None and len(self.result.findings) == before:
                manifests.append((sealed, manifest))
        if len(manifests) == len(versions) and numbers == list(range(1, len(numbers) + 1)):
            try:
                self._check_sums(month, manifests)
            except duckdb.Error as error:  # its message may quote a line, numbers and all
                self.find(folder, f"cannot be added up ({type(error).__name__}): was it changed just now?")
        for path, text in verify_copies.legacy_problems([sealed for sealed, _ in manifests], month, self.settings):
            self.find(path, text)
        self._check_answers(month)

    def _check_version(
        self, sealed: SealedVersion, base: list[dict[str, Any]]
    ) -> tuple[dict[str, Any] | None, str | None]:
        self.result.versions += 1
        entry = self._sealed_entry(sealed)
        if entry is None and self.entries is not None:  # sealed while this was running?
            time.sleep(WRITER_SECONDS)
            self.entries = ledger.read(self.settings)
            entry = self._sealed_entry(sealed)
        if entry is None and self.entries is not None:
            self.find(
                sealed.folder, "no line of the ledger says it was sealed (the next billing step writes a late one)"
            )
        manifest, digest = self._check_manifest(sealed, entry)
        self._check_approval(sealed, digest, entry)
        if manifest is None:
            return None, digest
        self._check_files(sealed, manifest)
        if manifest.get("adjusts", []) != (base if sealed.version > 1 else []):
            self.find(sealed.folder / feed_files.MANIFEST, "adjusts other versions than those before it")
        return manifest, digest

    def _check_manifest(
        self, sealed: SealedVersion, entry: ledger.Entry | None
    ) -> tuple[dict[str, Any] | None, str | None]:
        path, success = sealed.folder / feed_files.MANIFEST, sealed.folder / feed_files.SUCCESS
        try:
            content = path.read_bytes()
        except OSError as error:
            self.find(path, f"cannot be read: {error.strerror}")
            return None, None
        digest = hashlib.sha256(content).hexdigest()
        released = _bytes_of(success)
        stated = {entry["object"]["manifest_sha256"]} if entry else _stated_digests(sealed.folder, released)
        if digest not in stated:
            self.find(
                path, f"was altered: its sha256 is {digest}, released was {' or '.join(sorted(stated)) or 'none'}"
            )
            return None, digest
        if released != digest.encode() + b"\n":
            self.find(success, "expected the sha256 of manifest.json and a line end, found something else")
        try:
            manifest = json.loads(content)
            month, version, files = manifest["billing_month"], manifest["version"], manifest["files"]
            known = {name for file in files for name in file}
        except (ValueError, TypeError, KeyError, RecursionError):
            self.find(path, "is not the manifest of a feed version")
            return None, digest
        if (month, version) != (f"{sealed.month:%Y-%m}", sealed.version):
            self.find(path, f"is that of {month} v{version}")
            return None, digest
        if files and known != {"name", "rows", "bytes", "sha256", "fee_li"}:
            self.find(path, "names its files otherwise than the contract says")
            return None, digest
        return manifest, digest

    def _check_approval(self, sealed: SealedVersion, digest: str | None, entry: ledger.Entry | None) -> None:
        path = sealed.folder / feed_files.APPROVAL
        content = _bytes_of(path)
        if content is None:
            self.find(path, "is missing or cannot be read")
            return
        found = hashlib.sha256(content).hexdigest()
        if entry is not None and entry["details"]["approval_sha256"] != found:
            self.find(path, f"was altered: the ledger, line {entry['seq']}, knows another approval")
            return
        try:
            approval = feed_files.read_approval(sealed.folder)
        except FeedError as error:
            self.find(path, f"expected {error.expected}, found {error.found}")
            return
        if digest is not None and approval["manifest_sha256"] != digest:
            self.find(path, "approves another manifest")
        if approval["version"] != sealed.version:
            self.find(path, f"approves version {approval['version']}")
        self._check_anchor(path, approval)

    def _check_anchor(self, path: Path, approval: dict[str, Any]) -> None:
        """The approval knows how the ledger ended then; a ledger written anew since does not hold that line."""
        anchor = approval.get("ledger")
        count = anchor.get("entries") if isinstance(anchor, dict) else None
        if type(count) is not int or count < 0 or "hash" not in anchor:
            self.find(path, "is not anchored in the ledger")
            return
        if self.entries is None or count == 0:
            return
        known = self.entries[count - 1]["hash"] if count <= len(self.entries) else None
        if known != anchor["hash"]:
            text = f"line {count} is not the one that {path.parent.name}/{path.name} was anchored at"
            self.find(self.settings.exports / ledger.LEDGER, text)

    # --- files -------------------------------------------------------------------------------------------------

    def _check_files(self, sealed: SealedVersion, manifest: dict[str, Any]) -> None:
        named = {file["name"]: file for file in manifest["files"]}
        present = {entry.name for entry in os.scandir(sealed.folder)}
        own = {feed_files.MANIFEST, feed_files.APPROVAL, feed_files.SUCCESS}
        for name in sorted(present - named.keys() - own):
            self.find(sealed.folder / name, "is not in the manifest")
        for name, file in named.items():
            path = sealed.folder / name
            if name not in present or path.is_symlink() or not path.is_file():
                self.find(path, "is missing, or is no plain file")
                continue
            self.result.files += 1
            self._check_file(path, file, sealed, manifest)

    def _check_file(self, path: Path, file: dict[str, Any], sealed: SealedVersion, manifest: dict[str, Any]) -> None:
        size, digest = 0, hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                size += len(chunk)
                digest.update(chunk)
        if (size, digest.hexdigest()) != (file["bytes"], file["sha256"]):
            self.find(
                path,
                f"was altered: expected {file['bytes']} bytes, sha256 {file['sha256']}, found {size} bytes, "
                f"sha256 {digest.hexdigest()}",
            )
            return
        kind = path.name.split(".")[0].split("_")[0]
        if kind not in COLUMNS:
            self.find(path, "is of no kind that a feed holds")
            return
        content = _Content(kind)
        try:
            for line in _lines(path):
                content.take(line)
        except (ValueError, OSError, EOFError, zlib.error) as error:
            self.find(path, f"line {content.rows + 1}: {error}")
            return
        self.result.lines += content.rows
        if (content.rows, content.fee_li) != (file["rows"], file["fee_li"]):
            self.find(
                path,
                f"holds {content.rows} lines and {content.fee_li} li, the manifest says {file['rows']} and "
                f"{file['fee_li']}",
            )
        if kind == "inputs":
            if content.digest.hexdigest() != manifest["digests"]["inputs"]:
                self.find(path, "does not hold the deliveries of which the manifest gives the digest")
            self._check_inputs(path)

    def _check_inputs(self, path: Path) -> None:
        """The manifests of the deliveries behind a bill must still be those, as far as they are still there."""
        for line in list(_lines(path))[1:]:
            extract, day, source, delivery, sha256 = line.split(",")
            numbering = f"_d{delivery}" if delivery != "1" else ""
            name = f"{extract}_{day.replace('-', '')}_{source}{numbering}.manifest.json"
            manifest = self.settings.landing / extract / day / name
            key = str(manifest)
            if key not in self._seen_inputs:
                content = _bytes_of(manifest)
                self._seen_inputs[key] = hashlib.sha256(content).hexdigest() if content is not None else sha256
            if self._seen_inputs[key] != sha256:
                self.find(manifest, f"is not the one that {path.parent.parent.name} {path.parent.name} was made of")

    # --- sums --------------------------------------------------------------------------------------------------

    def _check_sums(self, month: date, base: list[tuple[SealedVersion, dict[str, Any]]]) -> None:
        first = base[0][1]
        billed = first["dispositions"]["billed"]
        charges = sealed_lines.line_files(first)
        if (sum(file["rows"] for file in charges), sealed_lines.total_li(first)) != (billed["count"], billed["fee_li"]):
            self.find(base[0][0].folder / feed_files.MANIFEST, "charges other lines than its disposition `billed`")
        with duckdb.connect(
            config={"memory_limit": self.settings.memory_limit, "threads": self.settings.threads}
        ) as db:
            sealed_lines.load_sealed_lines(db, base)
            wrong = db.execute(
                """
                select version, count(*)
                from (
                    select
                        version, charged_li, delta_li,
                        sum(delta_li) over (
                            partition by subscription_id order by version rows unbounded preceding
                        ) as summed_li
                    from sealed_lines
                )
                where charged_li <> summed_li or charged_li < 0 or (version > 1 and delta_li = 0)
                group by version
                order by version
                """
            ).fetchall()
            for version, lines in wrong:
                self.find(base[version - 1][0].folder, f"{lines} lines do not add up with the versions before")
            try:
                self._check_published(db, month, base)
            except duckdb.Error as error:
                self.find(self.settings.published_marts, f"cannot be read ({type(error).__name__}); publish it again")

    def _check_published(
        self, db: duckdb.DuckDBPyConnection, month: date, base: list[tuple[SealedVersion, dict[str, Any]]]
    ) -> None:
        """Analysts must see of a month what was sealed, and nothing else."""
        from cleanbill.billed_charges import approval_day
        from cleanbill.pseudonym import pseudonym_sql, set_key_variables

        path = self.settings.published_marts
        if not path.exists():
            return
        db.execute("create or replace temp table approvals (version integer, sealed_on date)")
        for sealed, _ in base:
            day = approval_day(feed_files.read_approval(sealed.folder), sealed)
            db.execute("insert into approvals values ($1, $2)", [sealed.version, day])
        db.execute(f"attach '{str(path).replace(chr(39), chr(39) * 2)}' as published (read_only)")
        if not db.execute(
            "select count(*) from duckdb_tables() where database_name = 'published' and table_name = $1",
            [BILLED_CHARGES.name],
        ).fetchone()[0]:
            self.result.notes.append(f"{path.name} holds no {BILLED_CHARGES.name} yet: run or bill once")
            return
        subscriber = "null"
        if self._has_key_of(base):
            set_key_variables(db, self.settings.pseudonym_key_bytes())
            subscriber = pseudonym_sql("msisdn")
        else:
            self.result.notes.append(
                f"subscriber ids in {BILLED_CHARGES.name} of {month:%Y-%m} are not compared: "
                "there is no pseudonym key, or another one than the month was billed with"
            )
        released = f"""
            select
                version, subscription_id, {subscriber}, sp_code, service_code, charged_li, delta_li, sealed_on
            from sealed_lines inner join approvals using (version)
        """  # noqa: S608 - constants
        shown = f"""
            select
                version, subscription_id, {"null" if subscriber == "null" else "subscriber_id"}, sp_code, service_code,
                charged_li, delta_li, sealed_on
            from published.main.{BILLED_CHARGES.name} where billing_month = $month
        """  # noqa: S608 - constants
        (missing,), (surplus,) = (
            db.execute(f"select count(*) from ({left} except all {right})", {"month": month}).fetchone()  # noqa: S608
            for left, right in ((released, shown), (shown, released))
        )
        if missing or surplus:
            text = f"{BILLED_CHARGES.name} of {month:%Y-%m} lacks {missing} released lines and has {surplus} others"
            self.find(path, text)
        db.execute("detach published")

    def _has_key_of(self, base: list[tuple[SealedVersion, dict[str, Any]]]) -> bool:
        """Tell whether the ids analysts see can be made here: whoever verifies may have no key, or a newer one."""
        try:
            key = feed_files.key_digest(self.settings)
        except SettingsError:
            return False
        return all(manifest["digests"].get("key", key) == key for _, manifest in base)

    # --- answers of the consumer -------------------------------------------------------------------------------

    def _check_answers(self, month: date) -> None:
        try:
            sealed_versions(month, self.settings)
            answers = acknowledgements.read_answers(month, self.settings)
        except CleanbillError:
            return  # the versions are not whole, which was found already
        for answer in answers:
            path = released_folder(month, self.settings) / ACKS / answer.name
            if answer.problem is not None:
                self.find(path, answer.problem)
                continue
            subject = (f"{month:%Y-%m}", answer.version)
            recorded = {
                entry["details"].get("sha256")
                for entry in self.entries or []
                if (entry["object"].get("billing_month"), entry["object"].get("version")) == subject
                and entry["details"].get("file") == answer.name
            }
            if recorded and answer.sha256 not in recorded:
                self.find(path, f"is another answer to v{answer.version} than the one in the ledger")


class _Content:
    """Adds up the lines of one file."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.columns = COLUMNS[kind]
        self.fee_at = self.columns.index(FEE_COLUMNS[kind]) if kind in FEE_COLUMNS else None
        self.rows = -1  # the header is no row
        self.fee_li = 0
        self.digest = hashlib.sha256()

    def take(self, line: str) -> None:
        """Count one line.

        Raises:
            ValueError: it is not as the contract says.
        """
        fields = line.split(",")
        self.rows += 1
        if self.rows == 0:
            if tuple(fields) != self.columns:
                raise ValueError(f"expected the columns {','.join(self.columns)}")
            return
        if len(fields) != len(self.columns):
            raise ValueError(f"expected {len(self.columns)} fields, found {len(fields)}")
        if self.fee_at is not None:
            self.fee_li += int(fields[self.fee_at])
        if self.kind == "inputs":
            self.digest.update(line.encode() + b"\n")
        if self.kind == "adjustments":
            fee_li, (previous_li, new_li, delta_li) = int(fields[5]), map(int, fields[7:10])
            if not fee_li == delta_li == new_li - previous_li != 0:
                raise ValueError("its amounts do not add up")


def _lines(path: Path) -> Iterator[str]:
    """Give the lines of a file of the feed, without their line ends.

    Raises:
        ValueError: a line has another end than `\\n`, or is not ASCII.
    """
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n") or line.endswith(b"\r\n"):
                raise ValueError("expected every line to end with one line feed")
            yield line[:-1].decode("ascii")


def _bytes_of(path: Path) -> bytes | None:
    try:
        return None if path.is_symlink() else path.read_bytes()
    except OSError:
        return None


def _stated_digests(folder: Path, released: bytes | None) -> set[str]:
    """Return what _SUCCESS and approval.json say the manifest's sha256 is, where the ledger says nothing."""
    stated = {released.decode(errors="replace").strip()} if released else set()
    with contextlib.suppress(FeedError):
        stated.add(str(feed_files.read_approval(folder)["manifest_sha256"]))
    return stated
