"""Write the bill of a run into its statistics: an interim bill, and the final one after the clusters have ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.lake.layout import REPORT, Run
from jobs.lake.names import confined
from jobs.lake.store import Store
from jobs.lake.uri import join, to_uri
from jobs.prices.bill import Bill
from jobs.results.summary import read_bill, record_statistics
from nightjar.tasks.report import write_report

log = logging.getLogger(__name__)


def record_bill(run: Run, store: Store) -> Bill | None:
    """Write the bill of a run into its statistics, and return it. Return None if the run has no cluster of its own."""
    bill = read_bill(run, store, is_running=True)
    if bill is None:
        return None
    record_statistics(
        run, {"instance_seconds": bill.total.seconds, "cost_usd": bill.cost_usd, "bill": bill.to_json()}, store
    )
    log.info("%s", describe(bill))
    return bill


def settle(run: Run, store: Store, stats_dir: Path) -> None:
    """Write the bill and the report of a run whose clusters have ended. Update the local copy of the statistics, too.

    An error is logged: it must not fail the task that has ended the clusters.
    """
    with _tolerated(run):
        if record_bill(run, store) is None:
            return
        write_report(run, store)
        copy = join(to_uri(str(stats_dir)), run.folder)
        if store.exists(join(copy, "stats.json")):
            for name in ("stats.json", REPORT):
                store.copy(confined(run.stats, name), confined(copy, name))


def record_tolerantly(run: Run, store: Store) -> None:
    """Write the bill of a run into its statistics. An error is only logged."""
    with _tolerated(run):
        record_bill(run, store)


@contextmanager
def _tolerated(run: Run) -> Iterator[None]:
    """Log an error in the block: a bill must not fail the task that ends clusters or copies statistics."""
    try:
        yield
    except Exception as error:
        log.warning("%s: the bill could not be written (%s: %s)", run.uri, type(error).__name__, error)
        log.debug("traceback", exc_info=True)


def describe(bill: Bill) -> str:
    """Return the bill in one line."""
    if bill.is_embedded:
        cost = "nothing on the embedded EMR"
    elif bill.total.usd is None:
        cost = f"cost is not known: {bill.problem}"
    else:
        cost = f"{'at most ' if bill.at_most else ''}{bill.total.usd:.2f} USD"
    so_far = "" if bill.is_final else " so far"
    return f"Bill{so_far}: {bill.total.seconds:,.0f} instance seconds, {cost}"
