"""Cutting Markdown along its headings."""

from hypothesis import given
from hypothesis import strategies as st

from nearshore_indexer.markdown import markdown_pieces
from nearshore_indexer.text_files import Piece, Splitting

LINES = st.lists(
    st.sampled_from(
        ["# One", "## Two words", "### ", "#### Deep", "text of a line. And more.", "", "", "```", "~~~~", "- item",
         "    code", "| a | b |", "|---|---|", "===", "---", "> quote", "<div>", "title: x", "word " * 30,
         "# " + "long " * 12 + "Wide", "### " + "long " * 30 + "Long"]
    ),
    max_size=40,
)  # fmt: skip


def count(texts: object) -> list[int]:
    """Words."""
    assert isinstance(texts, list)
    return [len(text.split()) for text in texts]


def pieces(text: str, max_tokens: int = 20, overlap: int = 0) -> list[Piece]:
    """The passages of a text."""
    return list(markdown_pieces(text, Splitting(max_tokens, overlap, count)))


def told(text: str, max_tokens: int = 20) -> list[tuple[str, str]]:
    """Titles and texts of the passages."""
    return [(piece.title, piece.text) for piece in pieces(text, max_tokens)]


def test_a_passage_is_titled_by_the_headings_above_it() -> None:
    """None crosses a heading, of either kind; what stands before the first has no title."""
    text = "Before.\n\n# Birds #\n\nThey sing.\n\nHigh up\n-------\n\nThey fly.\n\n# Fish\nThey swim.\n"
    assert told(text) == [
        ("", "Before."),
        ("Birds", "They sing."),
        ("Birds > High up", "They fly."),
        ("Fish", "They swim."),
    ]


def test_a_heading_above_nothing_is_a_passage() -> None:
    """Unless smaller headings below it carry its words."""
    assert told("# A\n\n## B\n\n## C\n\ntext\n\n# D\n") == [("A", "B"), ("A > C", "text"), ("", "D")]


def test_code_is_no_heading_and_stays_whole() -> None:
    """A fence with blank lines and full stops in it is one piece while it fits; lines are cut when it does not."""
    code = "```sh\n# not a heading\n\nrun it. then stop. and more.\n```"
    text = f"# T\n\nOne two three four five six seven.\n\n{code}\n\nAfter.\n"
    assert told(text, 14) == [("T", "One two three four five six seven."), ("T", code), ("T", "After.")]
    long = "```\n" + "".join(f"line number {n} of it\n" for n in range(10)) + "```\n"
    cut = pieces(f"# T\n\n{long}", 14)
    assert all(piece.text.splitlines()[-1].startswith(("line", "```")) for piece in cut)
    assert max(count([piece.text])[0] for piece in cut) <= 13


def test_front_matter_is_no_text() -> None:
    """Its title stands above all, once; without the closing line it is text like any other."""
    assert told('---\ntitle: "Birds"\ntags:\n  - x\n---\n\n# Birds\n\nThey sing.\n\n## Up\n\nHigh.\n') == [
        ("Birds", "They sing."),
        ("Birds > Up", "High."),
    ]
    assert told("---\nfirst\n\n---\n\nsecond\n") == [("", "---\nfirst\n\n---\n\nsecond")]


def test_a_title_too_long_loses_its_outermost_headings() -> None:
    """At most half of a passage is title, for every passage repeats it."""
    text = "# " + "wide " * 8 + "\n\nbody\n\n## near\n\ntext\n"
    assert told(text, 16) == [("wide " * 7 + "wide", "body"), ("near", "text")]


def test_a_heading_that_no_title_has_is_text() -> None:
    """It begins the text of its section, which may be nothing but this heading; what stands below is not changed."""
    wide, long = " ".join(["wide"] * 8), " ".join(["long"] * 9)
    assert told(f"# {wide}\n\n## near\n\ntext\n", 16) == [("", wide), ("near", "text")]
    assert told(f"# {wide}\n\n## near\n\n### by\n", 16) == [("", wide), ("near", "by")]
    assert told(f"# {long}\n\nend\n\n## near\n\ntext\n", 16) == [("", f"# {long}\n\nend"), ("near", "text")]
    assert told(f"# {long}\n\n## near\n\n# a\n\ntext\n", 16) == [("", long), ("", "near"), ("a", "text")]


def test_a_heading_without_spaces_is_not_repeated() -> None:
    """A model may see one token in it; what is too long for a title in characters is text, once, cut as text is."""
    found = pieces(f"# {'y' * 3_000}\n\n" + "One two three. " * 20, 16)
    assert {piece.title for piece in found} == {""}
    assert sum(piece.text.count("y") for piece in found) == 3_000
    assert max(len(piece.text) for piece in found) <= 16 * 32


def test_every_passage_knows_where_it_begins() -> None:
    """The place of a rejection is a line of the file."""
    text = "---\ntitle: x\n---\n# A\n\none two. three four. five six.\n\n## B\n\nseven\n\n# I J K L\n\neight\n"
    for piece in pieces(text, 6):
        assert text[piece.start :].lstrip().startswith(piece.text)


@given(lines=LINES, max_tokens=st.integers(16, 40), overlap=st.integers(0, 8))
def test_no_word_is_lost_and_nothing_is_too_long(lines: list[str], max_tokens: int, overlap: int) -> None:
    """Every word outside front matter is in some passage or its title, and each passage fits with its title."""
    text = "\n\n" + "\n".join(lines)
    found = pieces(text, max_tokens, overlap)
    shown = " ".join(f"{piece.title} {piece.text}" for piece in found).split()
    for word in ("Deep", "item", "quote", "code", "line.", "One", "Two", "Wide", "Long"):
        assert (word in shown) == (word in text.split())
    for piece in found:
        assert sum(count([piece.title, piece.text])) <= max_tokens
