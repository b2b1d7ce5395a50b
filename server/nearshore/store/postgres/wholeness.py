"""Whether the database is all there: pg_restore fills one table after the other beneath whoever reads.

Meanwhile collections are missing, and heads are those of the end before the rows are there: a follower would take what
it finds for all there is. The indexes come last, so the one of the feed tells.
"""

from __future__ import annotations

from nearshore.store.errors import StoreUnavailableError
from nearshore.store.postgres.patience import Connection

# In pg_class, as the transaction's snapshot has it: the name alone is looked up in what is newest.
_WHOLE = "SELECT EXISTS (SELECT 1 FROM pg_class WHERE oid = to_regclass('items_feed'))"


def restoring() -> StoreUnavailableError:
    """What to tell while the database is not whole."""
    return StoreUnavailableError(
        "The database is being restored: the index items_feed is not there yet.",
        "Wait for the end of pg_restore (--single-transaction shows others all or nothing). If none runs, create the "
        "index again: CREATE INDEX items_feed ON items(collection, pos, key).",
    )


def check_whole(connection: Connection) -> None:
    """Raise StoreUnavailableError while the database is not whole: what was not found may come yet."""
    if not connection.execute(_WHOLE).fetchall()[0][0]:
        raise restoring()
