"""One stage of a day and of its bill, as a process that can be killed: the functions the tasks of the DAGs call.

usage: python -m tests.crash.daily_chain STAGE MONTH
"""

import sys
from collections.abc import Callable
from datetime import date, timedelta
from unittest.mock import patch

from cleanbill import billing_feed, build, gates, publish
from cleanbill.ingest import ingest
from cleanbill.settings import parse_month

RUN_ID = "killed"


def bill(month: date) -> None:
    # Whether the random world may be billed is another test's question.
    with (
        patch("cleanbill.feed_snapshot.require_inputs"),
        patch("cleanbill.feed_snapshot.require_unblocked"),
    ):
        database = billing_feed.prepare_month(month, RUN_ID).database
    gates.check("export", RUN_ID, database)
    billing_feed.draft_feed(month, RUN_ID)
    billing_feed.approve_feed(month, None, auto=True)
    billing_feed.seal_feed(month)


STAGES: dict[str, Callable[[date], object]] = {
    "ingest": lambda month: ingest(month, month - timedelta(days=1)),
    "build_staging": lambda month: build.build_staging(month - timedelta(days=1)),
    "build_marts": lambda month: build.build_marts(),
    "check_marts": lambda month: gates.check("marts", RUN_ID),
    "publish": lambda month: publish.publish_marts(RUN_ID),
    "bill": bill,
}

if __name__ == "__main__":
    STAGES[sys.argv[1]](parse_month(sys.argv[2]))
