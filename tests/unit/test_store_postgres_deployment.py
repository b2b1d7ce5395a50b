"""PostgreSQL as a deployment sets it up: tables of other releases and programs, URLs, roles, settings."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from nearshore.errors import CollectionNotFoundError, NearshoreError
from nearshore.store.base import Cursor, Store
from nearshore.store.errors import StoreFormatError, StoreUnavailableError, StoreUrlError
from nearshore.store.postgres import schema
from nearshore.store.postgres.connections import Address
from nearshore.store.postgres.failures import translate
from tests.postgres import PostgresServer, database_of, execute
from tests.stores import SPEC, Open, upsert, walk

SECRET = "s3cret-Pässword"


# Schema


def migrations(monkeypatch: pytest.MonkeyPatch, *more: schema.Migration) -> None:
    """Let this process be of a later release."""
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *more))


def test_the_release_before_runs_on_a_compatible_schema(
    url: str, opener: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that only expands lets both releases run, before and after it; a failed one leaves no trace."""
    old = opener(url)
    collection_id = old.create_collection(SPEC).id
    with monkeypatch.context() as later:
        migrations(later, schema.Migration(1, ("CREATE TABLE extra(x int)", "INSERT INTO missing VALUES(1)")))
        with pytest.raises(NearshoreError):
            opener(url)
    with monkeypatch.context() as later:
        migrations(later, schema.Migration(1, ("CREATE TABLE extra(x int)",)))
        for _ in range(2):
            opener(url).write(collection_id, [upsert("a")]).result()
    old.write(collection_id, [upsert("b")]).result()
    assert len(walk(opener(url), collection_id)[0]) == 2  # after a rollback of the release
    assert execute(url, "SELECT version, compatible FROM nearshore_schema") == [(2, 1)]


def test_an_incompatible_schema_is_refused(url: str, opener: Open) -> None:
    """A database that a later release made unreadable for this one names the versions and stays as it is."""
    execute(url, "UPDATE nearshore_schema SET version = 99, compatible = 98")
    with pytest.raises(StoreFormatError, match="version 99") as refused:
        opener(url)
    assert refused.value.metadata == {"found": "99", "known": str(len(schema.MIGRATIONS))}


def test_tables_of_another_program_are_left_alone(postgres_url: str, opener: Open) -> None:
    """A database that has an `items` of its own is refused, and nothing is made in it."""
    execute(postgres_url, "CREATE TABLE items(song text)")
    with pytest.raises(StoreFormatError, match="another program"):
        opener(postgres_url)
    tables = execute(postgres_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert tables == [("items",)]


def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: PostgresServer, opener: Open) -> None:
    """An encoding other than UTF8 is refused with the statement that makes a better database."""
    url = f"{postgres_server.url('latin')}"
    execute(
        postgres_server.url(),
        "DROP DATABASE IF EXISTS latin",
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
    )
    with pytest.raises(StoreFormatError, match="ENCODING 'UTF8'"):
        opener(url)


# What a deployment gets wrong


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:s3cret@host/database",
        "postgresql://user:s3cret@host",
        "postgresql://user:s3cret@host:s3cret/database",
        "postgresql://user:s3cret%zz@host/database",
        "postgresql://user:s3cret@host/database?s3cret=1",
        "postgresql://host/database?password=abc&secret=1",
        "postgresql://user:abc/d?secret=1@host/database",
        "postgresql://user:abc?secret=1",
        "postgresql://user:99999",
    ],
)
def test_an_unusable_url_is_refused_without_repeating_it(url: str, opener: Open) -> None:
    """Neither message nor remedy shows any part of the password."""
    with pytest.raises(StoreUrlError) as refused:
        opener(url)
    told = f"{refused.value} {refused.value.metadata} {refused.value.__cause__}"
    assert not any(secret in told for secret in ("s3cret", "secret", "99999"))


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (":99999/database", "port is not one from 1 to 65535"),
        (":0/database", "port is not one from 1 to 65535"),
        (":5432,other:65536/database", "port is not one from 1 to 65535"),
        ("/database?foo=bar", "libpq has no option foo,"),
        ("/database?ssl=true&sslmode=disable&foo=bar&currentSchema=a", "no option foo and no option currentSchema,"),
    ],
)
def test_a_port_or_an_option_that_cannot_be_is_refused_and_not_tried(rest: str, why: str, opener: Open) -> None:
    """It would never be reached, so it is a mistake in the setting, which the message names."""
    with pytest.raises(StoreUrlError, match=why):
        opener(f"postgresql://user:s3cret@host{rest}")


def test_a_server_that_does_not_answer_is_told_with_its_place(opener: Open) -> None:
    """A closed port is STORE_UNAVAILABLE with host, port, database and user, never the password."""
    with pytest.raises(StoreUnavailableError) as refused:
        opener("postgresql://me:s3cret@127.0.0.1:1/passages", connect_timeout_s=1.0)
    assert "postgresql://me@127.0.0.1:1/passages" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.fixture
def role(postgres_server: PostgresServer, postgres_url: str) -> Iterator[str]:
    """A role that needs a password."""
    hba = postgres_server.data / "pg_hba.conf"
    before = hba.read_text()
    execute(postgres_url, f"CREATE ROLE careful LOGIN PASSWORD '{SECRET}'")
    hba.write_text(f"host all careful 127.0.0.1/32 scram-sha-256\n{before}")
    execute(postgres_url, "SELECT pg_reload_conf()")
    yield "careful"
    hba.write_text(before)
    execute(postgres_url, "SELECT pg_reload_conf()", "DROP OWNED BY careful", "DROP ROLE careful")


def as_role(url: str, role: str, password: str) -> str:
    """The URL with another user."""
    return url.replace("postgres@", f"{role}:{password}@")


def test_refused_credentials_and_missing_rights_say_what_to_do(
    postgres_server: PostgresServer, postgres_url: str, role: str, opener: Open
) -> None:
    """Wrong password, no such database, no right to make tables: STORE_URL, each with its remedy, no secret told."""
    quoted = SECRET.replace("ä", "%C3%A4")
    cases = {
        as_role(postgres_url, role, "s3cret-wrong"): "Secret",
        as_role(postgres_server.url("nowhere"), role, quoted): "CREATE DATABASE",
        as_role(postgres_url, role, quoted): "GRANT",
    }
    for url, remedy in cases.items():
        with pytest.raises(StoreUrlError) as refused:
            opener(url)
        assert remedy in refused.value.remedy
        assert "s3cret" not in str(refused.value)
    execute(postgres_url, f"GRANT ALL ON SCHEMA public TO {role}")
    store = opener(as_role(postgres_url, role, quoted))
    assert store.write(store.create_collection(SPEC).id, [upsert("a")]).result().commit.position == 1


def test_a_changed_password_ends_no_connection(postgres_url: str, role: str, opener: Open) -> None:
    """A store that is open reads and writes on; one that opens needs the new password, and is told so."""
    execute(postgres_url, f"GRANT ALL ON SCHEMA public TO {role}")
    url = as_role(postgres_url, role, SECRET.replace("ä", "%C3%A4"))
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert("a")]).result()
    execute(postgres_url, f"ALTER ROLE {role} PASSWORD 'other'")
    store.write(collection_id, [upsert("b")]).result()
    assert len(walk(store, collection_id)[0]) == 2
    with pytest.raises(StoreUrlError, match="refuses the password"):
        opener(url)
    assert Address.of(url, 1.0, 1.0).is_at_work((0, None))  # a slow commit is not given up over that
    replaced = opener(as_role(postgres_url, role, "other"))
    assert len(walk(replaced, collection_id)[0]) == 2


def test_too_many_connections_say_which_limits_to_look_at(postgres_url: str, role: str, opener: Open) -> None:
    """A server without a free connection is STORE_UNAVAILABLE, naming store.max_connections and the server's limits."""
    execute(postgres_url, f"GRANT ALL ON SCHEMA public TO {role}", f"ALTER ROLE {role} CONNECTION LIMIT 0")
    with pytest.raises(StoreUnavailableError, match=r"store\.max_connections"):
        opener(as_role(postgres_url, role, SECRET.replace("ä", "%C3%A4")))


def test_a_read_only_server_is_not_written_to(url: str, opener: Open) -> None:
    """A standby, or a primary fenced off with default_transaction_read_only, is refused and says so."""
    execute(url, f"ALTER DATABASE {database_of(url)} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailableError, match="read-only"):
        opener(url)


def test_settings_of_role_and_database_change_nothing(url: str, opener: Open) -> None:
    """Time-outs, isolation and asynchronous commit that an administrator set for all do not reach our sessions."""
    name = database_of(url)
    for setting in (
        "default_transaction_isolation = 'serializable'",
        "synchronous_commit = off",
        "statement_timeout = '300ms'",
        "TimeZone = 'Asia/Tokyo'",
        "enable_indexscan = off",
    ):
        execute(url, f"ALTER DATABASE {name} SET {setting}")
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    commit = store.write(collection_id, [upsert("a")]).result().commit
    page = store.read_feed(collection_id, Cursor())
    assert (page.head, page.head_at) == (Cursor(1, commit.tag), commit.at)
    assert "synchronous_commit=on" in store.durability
    assert "no synchronous standby" in store.durability


def test_another_search_path_changes_nothing_beneath_a_running_store(url: str, opener: Open) -> None:
    """Connections made after it was changed find the same tables, those of readers and of the writer."""
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    execute(
        url,
        'CREATE SCHEMA "Other one"',
        'CREATE TABLE "Other one".collections (LIKE collections)',
        f"""ALTER DATABASE {database_of(url)} SET search_path = '"Other one"', public""",
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'nearshore'",
    )
    assert [collection.id for collection in store.list_collections()] == [collection_id]
    assert store.write(collection_id, [upsert("a")]).result().commit.position == 1
    assert [collection.id for collection in opener(url).list_collections()] == [collection_id]


def test_a_url_may_name_the_schema(url: str, opener: Open) -> None:
    """Several nearshores live in one database, each in the schema of its URL, whatever is in the others."""
    execute(url, 'CREATE SCHEMA "Other one"')
    urls = (url, f"{url}?options=-csearch_path%3D%22Other%5C%20one%22")
    made = [opener(each).create_collection(SPEC).id for each in urls]
    assert [[each.id for each in opener(each).list_collections()] for each in urls] == [[each] for each in made]


def test_tables_that_the_search_path_misses_are_not_begun_anew(url: str, opener: Open) -> None:
    """A path past our tables is refused with both ways out, unless the URL gives it; so is one to nowhere."""
    opener(url).create_collection(SPEC)
    execute(url, "CREATE SCHEMA fresh", f"ALTER DATABASE {database_of(url)} SET search_path = fresh")
    with pytest.raises(StoreUrlError, match="leads to schema fresh, but schema public has") as refused:
        opener(url)
    assert "search_path%3Dpublic" in refused.value.remedy
    assert len(opener(f"{url}?options=-csearch_path%3Dpublic").list_collections()) == 1
    assert opener(f"{url}?options=-csearch_path%3Dfresh").list_collections() == []
    with pytest.raises(StoreUrlError, match="no schema"):
        opener(f"{url}?options=-csearch_path%3Dmissing")


def test_ids_and_names_that_no_text_can_be_are_just_not_there(url: str, opener: Open) -> None:
    """NUL and lone surrogates in what is looked for find nothing; they hurt no other."""
    store: Store = opener(url)
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert("a")]).result()
    odd = ["nul\0", "\ud800", "a"]
    assert set(store.get_items(collection_id, odd)) == {"a"}
    assert set(store.get_outlines(collection_id, odd)) == {"a"}
    assert store.list_ids(collection_id, odd) == ["a"]
    with pytest.raises(CollectionNotFoundError):
        store.get_collection("nul\0")


@pytest.mark.parametrize("state", ["53200", "53400", "55P03", "25P03", "25P04", "42703", "XX000"])
def test_a_refusal_speaks_of_its_own_call_alone(state: str) -> None:
    """A run that has written for hours ends with it: what it wrote before is there, whatever became of this call."""
    error = translate(psycopg.errors.lookup(state)("refused"), "db", "writing documents")
    assert "This call wrote nothing" in error.remedy
    assert "Nothing was written" not in error.remedy
