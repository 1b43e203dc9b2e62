"""Why a DAG run is red, as a small file: `reports/runs/<dag>/<run>.json`.

Written by the task that fails, read by whoever started the run, so that nobody has to open a log to see which
expectation failed. The text carries no phone number.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cleanbill.errors import CleanbillError
from cleanbill.masking import mask_text
from cleanbill.settings import Settings, get_settings

UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
LONGEST_NAME = 120


@dataclass(frozen=True)
class FailureRecord:
    """The failure of one task of a run."""

    dag_id: str
    run_id: str
    task_id: str
    error: str
    message: str
    deliberate: bool  # raised by cleanbill on purpose, so the message says what to do


def safe_run_id(run_id: str) -> str:
    """Return a name for files and records made of letters, digits, `_` and `-` only.

    A short digest keeps two ids apart that differ only in the characters replaced.
    """
    name = UNSAFE_IN_NAMES.sub("-", run_id)[:LONGEST_NAME]
    return name if name == run_id else f"{name}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def record_failure(context: dict[str, Any]) -> None:
    """Write why a task failed; the `on_failure_callback` of every task."""
    error = context.get("exception")
    task_instance = context["task_instance"]
    write_failure(
        FailureRecord(
            dag_id=task_instance.dag_id,
            run_id=task_instance.run_id,
            task_id=task_instance.task_id,
            error=type(error).__name__,
            message=mask_text(str(error)),
            deliberate=isinstance(error, CleanbillError),
        )
    )


def write_failure(record: FailureRecord, settings: Settings | None = None) -> Path:
    """Write `record`, replacing the one of an earlier try of the same run."""
    path = _record_path(record.dag_id, record.run_id, settings or get_settings())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(record), ensure_ascii=False, indent=2), encoding="utf-8")
    temporary.replace(path)
    return path


def read_failure(dag_id: str, run_id: str, settings: Settings | None = None) -> FailureRecord | None:
    """Return the failure recorded for a run, or None (a task that was killed leaves none)."""
    path = _record_path(dag_id, run_id, settings or get_settings())
    if not path.exists():
        return None
    return FailureRecord(**json.loads(path.read_text(encoding="utf-8")))


def _record_path(dag_id: str, run_id: str, settings: Settings) -> Path:
    return settings.reports / "runs" / safe_run_id(dag_id) / f"{safe_run_id(run_id)}.json"
