"""The schema of our tables: found once a process, by search_path, and then the only one that its sessions look into.

The path comes from store.url, the role, the database or the server, and all but the first can be changed beneath us:
the next connection would read and write other tables, or none.
"""

from __future__ import annotations

from psycopg import sql

from nearshore.store.errors import StoreUrlError
from nearshore.store.postgres.patience import Connection

_HOLDING = """
SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'nearshore_schema' AND c.relpersistence <> 't' AND pg_catalog.pg_table_is_visible(c.oid) = %s
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') ORDER BY n.nspname"""
_FIRST = """
SELECT pg_catalog.current_schema(), (SELECT source FROM pg_catalog.pg_settings WHERE name = 'search_path')"""


def find(connection: Connection, place: str) -> str:
    """The schema that has our tables, or where there are none yet, is to have them.

    Raises StoreUrlError where the search_path leads to no schema, or past tables that another one has: who did not
    ask for that in store.url would find all documents gone.
    """
    visible = connection.execute(_HOLDING, (True,)).fetchall()
    if visible:
        return str(visible[0][0])
    first, source = connection.execute(_FIRST).fetchall()[0]
    if first is None:
        raise StoreUrlError(
            f"The search_path of PostgreSQL at {place} names no schema that this user may use.",
            "GRANT USAGE, CREATE ON SCHEMA public to it, make the schema that is named (CREATE SCHEMA), or name one in "
            "store.url: ?options=-csearch_path%3Dpublic.",
        )
    elsewhere = connection.execute(_HOLDING, (False,)).fetchall()
    if elsewhere and source != "client":
        holder = elsewhere[0][0]
        raise StoreUrlError(
            f"The search_path of PostgreSQL at {place} leads to schema {first}, but schema {holder} has tables of "
            "nearshore.",
            f"Say in store.url which to use: ?options=-csearch_path%3D{holder} for those, =-csearch_path%3D{first} to "
            "begin with new ones.",
        )
    return str(first)


def setting(schema: str) -> str:
    """The statement after which a session looks into this schema alone."""
    return f"SET search_path = {sql.Identifier(schema).as_string(None)}"
