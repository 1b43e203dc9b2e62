"""Verify what else lies in `exports/`: fixed-width copies of sealed versions, and lists of reminders."""

import hashlib
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from cleanbill.errors import FeedError
from cleanbill.feed_files import MANIFEST, SUCCESS
from cleanbill.feed_versions import SealedVersion
from cleanbill.foreign_text import sha256_of
from cleanbill.legacy_feed import differing_files, legacy_folder
from cleanbill.settings import Settings

Problem = tuple[Path, str]


def legacy_problems(sound: list[SealedVersion], month: date, settings: Settings) -> Iterator[Problem]:
    """Hold each fixed-width copy of a month against its sealed version, byte by byte.

    Args:
        sound: the sealed versions of the month in which nothing was found; others have nothing to be held against.
        month: first day of M.
        settings: the installation.
    """
    for sealed in sound:
        copy = legacy_folder(month, sealed.version, settings)
        if not copy.is_dir():
            continue
        try:
            for path in differing_files(sealed.folder, copy):
                yield path, f"is not what v{sealed.version} gives: was altered, added or removed; export it again"
        except FeedError as error:
            yield copy, f"expected {error.expected}, found {error.found}"


def reminder_problems(root: Path) -> Iterator[Problem]:
    """Hold every folder of reminders against its manifest, and that against `_SUCCESS`."""
    files = [path for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
    folders = {path.parent for path in files}
    for folder in sorted(folders):
        if not any(part.startswith(".") for part in folder.relative_to(root).parts):  # being written
            yield from _list_problems(folder)


def _list_problems(folder: Path) -> Iterator[Problem]:
    path, success = folder / MANIFEST, folder / SUCCESS
    try:
        content, released = path.read_bytes(), success.read_bytes()
    except OSError as error:
        yield folder, f"expected a list with {MANIFEST} and {SUCCESS}: {error.strerror or type(error).__name__}"
        return
    if released != hashlib.sha256(content).hexdigest().encode() + b"\n":
        for one, other in ((path, success), (success, path)):
            yield one, f"does not fit {other.name}: one of the two was altered"
        return
    try:
        files = {file["name"]: file["sha256"] for file in json.loads(content)["files"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        yield path, "is not the manifest of a list"
        return
    present = {one.name: one for one in folder.iterdir()}
    for name in sorted(files.keys() | present.keys() - {MANIFEST, SUCCESS}):
        one = present.get(name)
        if name not in files:
            yield folder / name, "is not in the manifest"
        elif one is None or one.is_symlink() or not one.is_file() or sha256_of(one) != files[name]:
            yield folder / name, "was altered or removed"
