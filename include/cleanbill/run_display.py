"""How a DAG run looks while it is under way: a live line on a terminal, one line per finished task elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

TASK_FINISHED = {"success", "failed", "skipped", "upstream_failed", "removed"}
AT_WORK = {"running", "up_for_retry"}


@dataclass(frozen=True)
class RunOutcome:
    """How a DAG run stands: its state and the state of each task."""

    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, str]

    @property
    def finished_tasks(self) -> list[str]:
        """Tasks that are over, whatever their end."""
        return [task for task, state in self.tasks.items() if state in TASK_FINISHED]

    @property
    def at(self) -> str:
        """What is going on now, in a few words."""
        if len(self.finished_tasks) == len(self.tasks) and self.tasks:
            return "nothing to do" if set(self.tasks.values()) == {"skipped"} else self.state
        at_work = [task for task, state in self.tasks.items() if state in AT_WORK]
        again = " (will be tried again)" if "up_for_retry" in self.tasks.values() else ""
        if at_work:
            return ", ".join(at_work) + again
        return "waiting for another run" if "up_for_reschedule" in self.tasks.values() else "waiting"


def announced(console: Console, text: str) -> AbstractContextManager[object]:
    """Show `text` while something is done: as a spinner on a terminal, else as a line."""
    if not console.is_terminal:
        console.print(text)
    return console.status(text)


@contextmanager
def run_display(console: Console, label: str) -> Iterator[Callable[[RunOutcome], None]]:
    """Give a function that shows how a run stands; to be called again and again until it has ended."""
    if console.is_terminal:
        with _live(console, label) as show:
            yield show
    else:
        yield _lines(console, label)


@contextmanager
def _live(console: Console, label: str) -> Iterator[Callable[[RunOutcome], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} tasks"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[at]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        line = progress.add_task(label, total=None, at="waiting")
        yield lambda now: progress.update(
            line, total=len(now.tasks) or None, completed=len(now.finished_tasks), at=now.at
        )


def _lines(console: Console, label: str) -> Callable[[RunOutcome], None]:
    told: set[str] = set()

    def show(now: RunOutcome) -> None:
        for task in now.finished_tasks:
            if task not in told:
                told.add(task)
                console.print(f"{label}: {len(told)}/{len(now.tasks)} {task} {now.tasks[task]}", soft_wrap=True)

    return show
