"""Filter text: grammar, meaning for a document, and errors that help."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearshore.index.errors import InvalidFilterError
from nearshore.index.filters import MAX_DEPTH, Comparison, Field, FieldKind, Filter, Operator, parse, quoted
from nearshore.records import Document
from tests.unit.index_strategies import documents, render, trees

DOCUMENT = Document(
    id="d1",
    text="",
    title="A title",
    metadata={
        "lang": "ko",
        "a.b": "flat",
        "a key": 'quote " here',
        "year": 2020,
        "big": 2**53 + 1,
        "price": 2.5,
        "ok": True,
        "when": datetime(2024, 5, 1, 12, tzinfo=UTC),
        "written": "2024-05-01T12:00:00Z",
        "tags": ("x", "y"),
        "numbers": (1, 2),
        "none": (),
        "star": "a*b",
        "number_text": "5",
        "ünïcode": "日本",
    },
)


@pytest.mark.parametrize(
    "text",
    [
        'lang = "ko"',
        "lang = ko",
        "lang='ko'",
        '"lang" = "ko"',
        "a.b = flat",
        '"a.b" = flat',
        'a."b" = flat',
        r'"a key" = "quote \" here"',
        'lang != "en"',
        "year != ko",  # another type is not equal
        'lang:("en" OR "ko")',
        'lang = ("en" OR ko)',
        'lang != ("en" OR "fr")',
        "year = 2020 AND price = 2.5",
        "year = 2020.0",
        "price > 2 AND price < 3 price <= 2.5 price >= 2.5",
        "big = 9007199254740993",
        "NOT big = 9007199254740992",
        "big > 9007199254740992.0",
        "year > -5",
        "year != -2020",
        "year = (-1 OR 2020)",
        "ok = true",
        "ok != false",
        "NOT ok = 1",
        'NOT ok = "true"',
        "NOT number_text = 5",
        'number_text = "5"',
        'when = "2024-05-01T12:00:00Z"',
        'when = "2024-05-01T14:00:00+02:00"',
        'when < "2024-05-01T12:00:00.0000001Z"',
        'NOT when = "2024-05-01T12:00:00.0000001Z"',
        'when >= "2024-05-01t12:00:00z"',
        'NOT when > "2024"',
        'written = "2024-05-01T12:00:00Z"',
        'tags:"x"',
        'tags = "y"',
        'tags != "z"',
        'NOT tags != "x"',
        'tags:("x" AND "y")',
        'tags:("x" "y")',
        "numbers > 1",
        'tags >= "y"',
        "none:*",
        'NOT none = "x" none != "x"',
        "lang:*",
        "NOT missing:*",
        "-missing:*",
        "NOT missing = 1",
        "NOT missing != 1",
        "NOT (missing < 1 OR missing >= 1)",
        "_id = d1 AND _title:* AND NOT _parent_id:*",
        '_title >= "A"',
        r'star = "a\*b"',
        r'ünïcode = "日\u672c"',
        # OR binds tighter than AND, and than juxtaposition
        "lang = xx OR lang = ko AND year = 1 OR year = 2020",
        "NOT (year = 2020 OR lang = xx AND lang = yy)",
        "NOT (lang = xx year = 1 OR lang = ko)",
        "NOT lang = xx lang = ko",
        "NOT (lang = ko AND year = 1)",
        "\tlang\n=  ko ",
    ],
)
def test_holds_for_the_document(text: str) -> None:
    """Each of these is true of the document, as docs/filters.md explains."""
    assert parse(text).matches(DOCUMENT)


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("", 1, "blank"),
        (" \n", 1, "blank"),
        ("lang = ko foo", 11, "no full-text search"),
        ('"some words"', 1, "no full-text search"),
        ("a = 1 and b = 2", 7, "Write AND in capitals"),
        ("a = 1 || b = 2", 7, "Write OR in capitals"),
        ("size(a)", 1, "stands alone"),
        ("a == 1", 4, "Equality is one ="),
        ("!a = 1", 1, "NOT x = v"),
        ('a = "x', 5, "Close the quote"),
        ("a = 'x", 5, "Close the quote"),
        ("when > 2024-05-01T12:00:00Z", 21, "in quotes"),
        ("a =", 4, "ends too soon"),
        ("a = 1 AND", 10, "ends too soon"),
        ("(a = 1", 7, "ends too soon"),
        ("a = 1)", 6, "unexpected ')'"),
        ("a = b, c", 6, "unexpected ','"),
        ("a. = 1", 2, "unexpected '.'"),
        ('a = "x".y', 5, "no value"),
        ("a = null", 5, "NOT key:*"),
        ("a = *", 3, "key:*"),
        ("a = x*", 5, "wildcard"),
        ('a != "*x"', 6, "wildcard"),
        ('a = ("x" OR "y*")', 13, "wildcard"),
        ("a < x*", 5, "no value"),
        ("a < true", 3, "Use = or !="),
        ("a < (1 OR 2)", 3, "Several values"),
        ("a = (NOT 1)", 10, "put NOT before the key"),
        ("a = (b = 1)", 6, "Write the values alone"),
        ("a = -x", 5, "not before a number"),
        ("a = 1e999", 5, "too large"),
        (f"a = {'9' * 5000}", 5, "too large"),
        (r'a = "\q"', 5, "unknown escape"),
        (r'a = "\ud800"', 5, "unknown escape"),
        ("_score = 1", 1, "_parent_id"),
        ('"" = 1', 1, "no field"),
        ("(" * (MAX_DEPTH + 1) + "a = 1" + ")" * (MAX_DEPTH + 1), MAX_DEPTH + 1, "Flatten"),
        ("NOT (" * 1600, 5 * MAX_DEPTH + 5, "Flatten"),
        ("a = 1 " * 2000, 1, "more than 8192"),
        ('a = "' + "日" * 3000 + '"', 1, "9006 bytes"),
    ],
)
def test_refuses_with_column_and_remedy(text: str, column: int, part: str) -> None:
    """What cannot be understood is refused, naming the column and what to write instead."""
    with pytest.raises(InvalidFilterError) as caught:
        parse(text)
    assert caught.value.metadata == {"column": str(column)}
    assert part in str(caught.value)
    assert caught.value.remedy


def test_takes_the_deepest_and_longest_filters() -> None:
    """Nesting up to the limit and thousands of values are parsed and evaluated."""
    nested = "NOT (" * MAX_DEPTH + "lang = ko" + ")" * MAX_DEPTH
    assert parse(nested).matches(DOCUMENT)
    values = " OR ".join(f"v{number}" for number in range(800))
    assert parse(f"lang = ({values} OR ko)").matches(DOCUMENT)
    assert parse("number_text = " + '"' + "5" * 8000 + '" OR year = ' + "0" * 100 + "2020").matches(DOCUMENT)


@given(st.text(alphabet="ab_.*:=<>!()\"'\\- \n1e5ANDORNOT,&|日", max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """No text raises anything but InvalidFilterError, and what parses can be evaluated."""
    try:
        condition = parse(text)
    except InvalidFilterError as error:
        column = int(error.metadata["column"])
    else:
        column = 1
        assert condition.matches(DOCUMENT) in {True, False}
    assert 1 <= column <= len(text) + 1


@given(st.text() | st.text(alphabet="\\\"*'\n\0u", max_size=8))
def test_a_quoted_string_means_itself(text: str) -> None:
    """Whatever characters a string has, quoted() makes a literal of it that equals that string alone."""
    condition = parse(f"_parent_id = {quoted(text)}", 1 << 20)
    assert condition.matches(Document("d", "", parent_id=text)) == bool(text)
    assert not condition.matches(Document("d", "", parent_id=f"{text}x"))
    assert parse(f"{quoted('k' + text)}:*", 1 << 20).matches(Document("d", "", metadata={"k" + text: 1}))


@pytest.mark.parametrize(
    ("one", "other", "equal"), [(1, True, False), (0, False, False), (1, 1.0, True), (1, 2, False)]
)
def test_filters_are_equal_only_if_they_mean_the_same(one: int, other: float, equal: bool) -> None:
    """A number never equals true or false, as Python would have it; a whole double equals its integer."""
    field = Field(FieldKind.METADATA, "x")
    filters = [Filter(Comparison(field, Operator.EQUAL, literal)) for literal in (one, other)]
    assert (filters[0] == filters[1]) == equal
    assert len(set(filters)) == 2 - equal


@given(trees, documents)
def test_text_form_means_its_tree(tree: Filter, document: Document) -> None:
    """A tree written out and parsed again matches the same documents."""
    assert parse(render(tree.root), 1 << 20).matches(document) == tree.matches(document)
