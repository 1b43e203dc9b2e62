"""What the billing system answered: `exports/billing/<YYYY-MM>/acks/ack.json` and `reject.json`, one per version.

The files are made by somebody else, so nothing in them is believed: they are small, plain files with the version and
the sha256 of the manifest they answer to. A rejection, an answer that cannot be read and a version that nobody
answered in time are alarms. `record_news` writes each of them into the ledger once.
"""

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from cleanbill import feed_files, ledger, releases
from cleanbill.errors import FeedError
from cleanbill.feed_versions import ACKS, SealedVersion, released_folder, released_months, sealed_versions
from cleanbill.masking import mask_name, mask_text
from cleanbill.settings import Settings, get_settings

ACKNOWLEDGED, REJECTED, UNREADABLE, OVERDUE = "acknowledged", "rejected", "answer_unreadable", "answer_overdue"
# A consumer that wants to keep its answers to several versions adds the version to the name.
ANSWER_NAME = re.compile(r"(ack|reject)(?:_v([1-9][0-9]{0,5}))?\.json")
UNFINISHED = re.compile(r"^\.|\.(tmp|part|writing)$")  # being written; it is renamed when it is whole
LARGEST_ANSWER = 65_536  # bytes
LONGEST_REASON = 300
MOST_FILES = 200


@dataclass(frozen=True)
class Answer:
    """One answer of the billing system, or why a file in its folder is none (`problem`)."""

    month: date
    name: str
    sha256: str
    kind: str | None = None
    version: int | None = None
    reason: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class AnswerState:
    """How one sealed version stands: acknowledged, rejected, waiting or overdue since `due_on` has passed."""

    month: date
    version: int
    state: str
    due_on: date
    reason: str | None = None

    @property
    def is_alarm(self) -> bool:
        return self.state in ("rejected", "overdue")


def read_answers(month: date, settings: Settings) -> list[Answer]:
    """Return every answer in a month's folder, sorted by name; a file that is no answer comes with its problem."""
    folder = released_folder(month, settings) / ACKS
    if folder.is_symlink() or not folder.is_dir():
        return []
    versions = {sealed.version: sealed for sealed in sealed_versions(month, settings)}
    names = sorted(os.fsencode(entry.name) for entry in os.scandir(folder) if not UNFINISHED.search(entry.name))
    answers = [_read_answer(folder, month, os.fsdecode(name), versions) for name in names[:MOST_FILES]]
    if len(names) > MOST_FILES:
        problem = f"expected at most {MOST_FILES} files, found {len(names)}; the others are not looked at"
        answers.append(Answer(month, ACKS, "", problem=problem))
    return answers


def answer_states(month: date, settings: Settings, today: date) -> list[AnswerState]:
    """Return how every sealed version of a month stands on a day; a rejection outweighs an acknowledgement."""
    answers = read_answers(month, settings)
    states = []
    for sealed in sealed_versions(month, settings):
        due_on = _released_on(sealed) + timedelta(days=settings.feed_ack_days)
        own = [answer for answer in answers if answer.problem is None and answer.version == sealed.version]
        rejection = next((answer for answer in own if answer.kind == "reject"), None)
        if rejection is not None:
            states.append(AnswerState(month, sealed.version, "rejected", due_on, rejection.reason))
        elif own:
            states.append(AnswerState(month, sealed.version, "acknowledged", due_on))
        else:
            states.append(AnswerState(month, sealed.version, "overdue" if today > due_on else "waiting", due_on))
    return states


def alarms(settings: Settings, today: date | None = None) -> list[str]:
    """Return one line per alarm: rejections, answers overdue, files that are no answers."""
    today = today or datetime.now(ledger.ZONE).date()
    lines = []
    for month in released_months(settings):
        for state in answer_states(month, settings, today):
            if state.state == "rejected":
                lines.append(f"{month:%Y-%m} v{state.version} was rejected by the billing system: {state.reason}")
            elif state.state == "overdue":
                lines.append(f"{month:%Y-%m} v{state.version} was not answered by {state.due_on}")
        lines += [
            f"{month:%Y-%m} {ACKS}/{_shown(answer.name)}: {answer.problem}"
            for answer in read_answers(month, settings)
            if answer.problem is not None
        ]
    return lines


def record_news(settings: Settings | None = None, today: date | None = None) -> list[str]:
    """Write every answer and every alarm into the ledger, once each; return the alarms that stand now.

    Raises:
        FeedError: the ledger or a sealed version is damaged.
    """
    settings = settings or get_settings()
    today = today or datetime.now(ledger.ZONE).date()
    for month in released_months(settings):
        for answer in read_answers(month, settings):
            _record_answer(answer, settings)
        for state in answer_states(month, settings, today):
            if state.state == "overdue":
                ledger.record(
                    OVERDUE,
                    _subject(month, state.version, settings),
                    details={"due_on": f"{state.due_on}"},
                    result="alarm",
                    reason="neither ack.json nor reject.json in time",
                    settings=settings,
                )
    return alarms(settings, today)


def _record_answer(answer: Answer, settings: Settings) -> None:
    details = {"file": _shown(answer.name), "sha256": answer.sha256}
    if answer.problem is not None:
        subject = {"billing_month": f"{answer.month:%Y-%m}"}
        ledger.record(UNREADABLE, subject, details=details, result="alarm", reason=answer.problem, settings=settings)
        return
    is_rejection = answer.kind == "reject"
    ledger.record(
        REJECTED if is_rejection else ACKNOWLEDGED,
        _subject(answer.month, answer.version, settings),
        details=details,
        result="alarm" if is_rejection else "done",
        reason=answer.reason,
        settings=settings,
    )


def _subject(month: date, version: int, settings: Settings) -> dict[str, Any]:
    folder = released_folder(month, settings) / f"v{version}"
    return releases.subject_of(*feed_files.read_manifest(folder))


def _released_on(sealed: SealedVersion) -> date:
    from cleanbill.billed_charges import approval_day

    return approval_day(feed_files.read_approval(sealed.folder), sealed)


def _read_answer(folder: Path, month: date, name: str, versions: dict[int, SealedVersion]) -> Answer:
    match = ANSWER_NAME.fullmatch(name)
    if match is None:
        return Answer(
            month, name, "", problem="expected ack.json or reject.json (or ack_v2.json …), found another name"
        )
    try:
        content = _read_small_file(folder / name)
    except OSError as error:
        return Answer(month, name, "", problem=f"expected a readable plain file, found {error.strerror or error}")
    digest = hashlib.sha256(content).hexdigest()
    try:
        answered = _checked(content, versions, int(match.group(2)) if match.group(2) else None, match.group(1))
    except FeedError as error:
        return Answer(month, name, digest, problem=f"expected {error.expected}, found {error.found}")
    return Answer(month, name, digest, kind=match.group(1), version=answered[0], reason=answered[1])


def _read_small_file(path: Path) -> bytes:
    """Return the bytes of a plain file; links, pipes and devices are not followed, opened or waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "something else")
        return os.read(descriptor, LARGEST_ANSWER + 1)
    finally:
        os.close(descriptor)


def _checked(
    content: bytes, versions: dict[int, SealedVersion], named: int | None, kind: str
) -> tuple[int, str | None]:
    """Return version and reason of an answer.

    Raises:
        FeedError: it is not one; `expected` and `found` say why.
    """
    if len(content) > LARGEST_ANSWER:
        raise _no_answer(f"at most {LARGEST_ANSWER} bytes", "more")
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise _no_answer("JSON", "something else") from None
    if not isinstance(answer, dict):
        raise _no_answer("a JSON object", type(answer).__name__)
    version, manifest_sha256, reason = (answer.get(name) for name in ("version", "manifest_sha256", "reason"))
    if type(version) is not int or version not in versions:
        raise _no_answer(f"version, one of {', '.join(map(str, versions)) or 'none sealed'}", _short(version))
    if named is not None and named != version:
        raise _no_answer(f"version {named}, as in the file's name", _short(version))
    _, sealed_sha256 = feed_files.read_manifest(versions[version].folder)
    if manifest_sha256 != sealed_sha256:
        raise _no_answer(f"manifest_sha256 {sealed_sha256}", _short(manifest_sha256))
    if reason is not None and not isinstance(reason, str):
        raise _no_answer("reason as text", type(reason).__name__)
    if kind == "reject" and not (reason or "").strip():
        raise _no_answer("reason, why it was rejected", "none")
    return version, None if reason is None else _one_line(reason)


def _no_answer(expected: str, found: str) -> FeedError:
    return FeedError(where=ACKS, expected=expected, found=found, advice="have the billing system answer again")


def _short(value: Any) -> str:
    return mask_text(repr(value))[:80]


def _one_line(text: str) -> str:
    shown = "".join(character if character.isprintable() else " " for character in text)
    return mask_text(" ".join(shown.split()))[:LONGEST_REASON]


def _shown(name: str) -> str:
    return mask_name(name)[:80]
