"""Kills ingest again and again, at every act on a file and at random moments; prints what came of it as JSON (R1).

usage: python -m tests.crash.kill_ingest FOLDER SEED KILLS
"""

import json
import os
import random
import sys
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

import cleanbill.ingest as ingest_module
from cleanbill import ingest_journal
from cleanbill.settings import Settings

from tests.crash import killer
from tests.crash.state import ingest_state
from tests.delivery_writer import DeliveryWriter

EVENT = "e{0},138{0:08d},900001,SVC1,order,2026-10-01 10:00:00,,,"
USE = "138{0:08d},900001,SVC1,MT,2026-10-01 10:00:00,ok,content,2,100"


def write_world(home: Path, rng: random.Random) -> None:
    """Write deliveries with everything in them: resends, copies, refused ones, quarantine, none over its limit."""
    for day in ("2026-10-02", "2026-10-03"):
        for source in ("bj", "sh"):
            number = rng.randrange(10**6)
            use = [USE.format(number + place) for place in range(120)]
            DeliveryWriter(home, "sms_usage", day, source).add([*use, "x", use[0]], gz=rng.random() < 0.5).write()
            DeliveryWriter(home, "relation_events", day, source).add([EVENT.format(number)]).write()
        DeliveryWriter(home, "service_providers", day, "hq").add(["900001,SP,bj,active,"]).write()
    DeliveryWriter(home, "relation_events", "2026-10-02", "bj", 2).add([EVENT.format(7)]).write()
    DeliveryWriter(home, "relation_events", "2026-10-03", "bj", 2).add([EVENT.format(7)]).write()
    DeliveryWriter(home, "sms_usage", "2026-10-03", "sh", 2).add_bytes(b"rubbish\n", 0).write()


def main(folder: Path, seed: int, kills: int) -> dict[str, object]:
    rng = random.Random(seed)
    # Small steps, so that a kill meets every state between two records of finished work.
    ingest_module.BATCH_DELIVERIES = 2
    ingest_journal.RECORD_EVERY_DELIVERIES = 3
    record = ingest_journal.record
    acknowledged, give = os.pipe()
    os.set_blocking(acknowledged, False)

    def acknowledging_record(warehouse, outcomes) -> None:
        outcomes = list(outcomes)
        record(warehouse, outcomes)
        os.write(give, "".join(f"{outcome.key}\n" for outcome in outcomes if outcome.lake_path).encode())

    ingest_journal.record = acknowledging_record

    done = lost = worlds = 0
    codes: dict[int, int] = {}
    while done < kills:
        worlds += 1
        states = {}
        homes = {name: folder / f"{worlds}-{name}" for name in ("undisturbed", "killed")}
        write_seed = rng.randrange(10**9)
        for home in homes.values():
            write_world(home, random.Random(write_seed))

        def work(home: Path = homes["killed"]) -> None:
            ingest_module.ingest(date(2026, 10, 1), date(2026, 10, 3), Settings(home=home, threads=1))

        started = time.monotonic()
        killer.run(lambda home=homes["undisturbed"]: work(home))
        length = time.monotonic() - started
        os.read(acknowledged, 1 << 20)
        promised: set[str] = set()
        # Each try is killed one act later than the last, on what the tries before left behind; between them, by the
        # clock, the moments Python does not see.
        act, is_ended = 0, False
        while not is_ended and done < kills:
            if rng.random() < 0.25:
                code = killer.run_killed_after(rng.uniform(0, length), work)
            else:
                act += 1
                code = killer.run_killed_at(act, str(homes["killed"]), work)
                is_ended = code == 0
            codes[code] = codes.get(code, 0) + 1
            done += code == killer.KILLED
            with suppress(BlockingIOError):
                promised |= set(os.read(acknowledged, 1 << 20).decode().splitlines())
        codes[killer.run(work)] = codes.get(0, 0) + 1
        for name, home in homes.items():
            states[name] = ingest_state(home)
        kept = {" ".join(map(str, (*row[:3], "delivery", row[3]))) for row in states["killed"]["deliveries"]}
        lost += len(promised - kept)
        differing = [name for name in states["killed"] if states["killed"][name] != states["undisturbed"].get(name)]
        missing = [name for name in states["undisturbed"] if name not in states["killed"]]
        if differing or missing:
            return {"world": write_seed, "differing": differing, "missing": missing}
    return {"kills": done, "worlds": worlds, "lost": lost, "codes": codes, "promised": len(promised)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
