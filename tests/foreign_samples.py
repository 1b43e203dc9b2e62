"""The sample files of foreign formats under tests/fixtures/foreign, good and broken, with what must become of them."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "fixtures" / "foreign"
FORMATS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


@dataclass(frozen=True)
class BrokenSample:
    """A sample that is wrong in one way.

    Attributes:
        format: name of its mapping.
        case: name of its folder.
        without: good files that are not there.
        refused: code and words of the message, if the landing is refused.
        refused_rows: (line, code, column) of the rows refused at landing, in `file`.
        ingest: (extract, line, code) of the records refused by ingest.
    """

    format: str
    case: str
    what: str
    without: list[str] = field(default_factory=list)
    refused: dict[str, Any] | None = None
    refused_rows: list[list] = field(default_factory=list)
    ingest: list[list] = field(default_factory=list)
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.format}-{self.case}"


def expected_of(name: str) -> dict[str, Any]:
    """Return what the good sample of a format must give."""
    return yaml.safe_load((FOLDER / name / "cases.yml").read_text(encoding="utf-8"))["good"]


def broken_samples() -> list[BrokenSample]:
    """Return every broken sample of every format."""
    samples = []
    for name in FORMATS:
        cases = yaml.safe_load((FOLDER / name / "cases.yml").read_text(encoding="utf-8"))["broken"]
        folders = FOLDER / name / "broken"
        assert {path.name for path in folders.iterdir()} <= cases.keys(), f"{name}: a broken file without expectation"
        samples += [BrokenSample(name, case, **expected) for case, expected in cases.items()]
    return samples


def put_sample(target: Path, sample: BrokenSample | str) -> Path:
    """Copy the files of a good (by its format) or broken sample into a new folder."""
    name = sample if isinstance(sample, str) else sample.format
    shutil.copytree(FOLDER / name / "good", target)
    if isinstance(sample, BrokenSample):
        for gone in sample.without:
            (target / gone).unlink()
        changed = FOLDER / name / "broken" / sample.case
        if changed.is_dir():
            shutil.copytree(changed, target, dirs_exist_ok=True)
    return target
