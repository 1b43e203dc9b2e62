"""How a plan looks on a terminal; what is exact and what is estimated is said line by line."""

from collections import Counter

from rich.console import Group, RenderableType
from rich.text import Text

from cleanbill.day_ranges import as_ranges, in_words
from cleanbill.plan import Plan
from cleanbill.terminal_views import pairs, table

SHOWN_REFUSALS = 20


def plan_view(plan: Plan) -> RenderableType:
    """Return what the next run will do."""
    parts: list[RenderableType] = [
        pairs(
            "Plan of the next run (nothing was changed)",
            [
                ("as of (exact)", _as_of(plan)),
                ("rows to read (exact)", plan.rows_to_read),
                ("deliveries of later days that wait (exact)", plan.waiting),
                ("build (exact)", _build(plan)),
                *_reach(plan),
                ("expected to take (estimate)", _seconds(plan)),
            ],
        )
    ]
    if plan.cannot:
        parts.append(Text(f"The run cannot build: {plan.cannot}", style="yellow"))
    counted = Counter((change.kind, change.extract, change.source) for change in plan.changes)
    parts.append(
        table(
            "\nDeliveries that change (exact)",
            ["kind", "extract", "source", "deliveries", "rows", "days"],
            [
                (kind, extract, source, number, sum(one.rows for one in of_kind), _days(of_kind))
                for (kind, extract, source), number in sorted(counted.items())
                for of_kind in [
                    [one for one in plan.changes if (one.kind, one.extract, one.source) == (kind, extract, source)]
                ]
            ],
        )
        if plan.changes
        else Group(Text("\nDeliveries that change (exact)", style="bold"), Text("none"))
    )
    if plan.refused:
        parts.append(Text("\nWill be refused or not counted (exact)", style="bold"))
        parts += [Text(line) for line in plan.refused[:SHOWN_REFUSALS]]
        if len(plan.refused) > SHOWN_REFUSALS:
            parts.append(Text(f"and {len(plan.refused) - SHOWN_REFUSALS:,} more"))
    return Group(*parts)


def _as_of(plan: Plan) -> str:
    if plan.as_of is None:
        return "none"
    return f"{plan.as_of}" + (f", now {plan.previous_as_of}" if plan.previous_as_of else "")


def _build(plan: Plan) -> str:
    if plan.as_of is None:
        return "none"
    return "everything: " + "; ".join(plan.full_because) if plan.full_because else "only what changed"


def _days(changes: list) -> str:
    return in_words(as_ranges({change.business_date for change in changes}))


def _reach(plan: Plan) -> list[tuple[str, object]]:
    if plan.reach is None:
        return []
    reach = plan.reach
    months = "none"
    if reach.first_month is not None:
        causes = sorted(
            (month, reason) for reason, month in reach.reasons.items() if month <= (reach.last_month or month)
        )
        months = f"{reach.first_month:%Y-%m} to {reach.last_month:%Y-%m} (" + ", ".join(
            f"{reason} from {month:%Y-%m}" for month, reason in causes
        )
        months += ")"
    whole = "all" if reach.all_relations else f"of {reach.accounts:,} accounts that changed deliveries name"
    return [
        ("bills that may be judged anew (at most)", months),
        ("relations judged (estimate)", f"{reach.relations:,} ({whole})"),
        ("sealed months among them (at most)", ", ".join(plan.sealed_months) or "none"),
    ]


def _seconds(plan: Plan) -> str:
    if not plan.seconds:
        return "nothing to do"
    if any(one.seconds is None for one in plan.seconds.values()):
        return "no earlier run of this kind to judge by"
    steps = ", ".join(f"{step} {one.seconds:g} s by {one.runs} runs" for step, one in plan.seconds.items())
    return f"{sum(one.seconds for one in plan.seconds.values()):g} s without gates and publishing ({steps})"
