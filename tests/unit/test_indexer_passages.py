"""Splitting text into passages."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearshore_indexer.passages import COUNTED_CHARACTERS, max_characters, split

WORDS = st.lists(
    st.sampled_from(["a", "lake", "birds", "sing.", "Why?", "night!", "\n", "\n\n", "水。", "x" * 40]), max_size=120
)
STRETCHES = st.lists(
    st.tuples(st.sampled_from(["y", "words ", "A. ", "\n\n", "\n", " ", ".", "水"]), st.integers(1, 700)), max_size=12
)


def count(texts: object) -> list[int]:
    """Tokens as a toy model has them: one for every ten characters of a word, begun ones counted."""
    assert isinstance(texts, list)
    return [sum(-(-len(word) // 10) for word in text.split()) for text in texts]


def count_words(texts: Sequence[str]) -> list[int]:
    """Tokens as a model has them that takes a word of any length for one, as WordPiece does beyond 100 characters."""
    return [len(text.split()) for text in texts]


@given(words=WORDS, max_tokens=st.integers(2, 30), overlap=st.integers(0, 10))
def test_nothing_is_lost_and_nothing_is_too_long(words: list[str], max_tokens: int, overlap: int) -> None:
    """Passages cover every character that is no white space, in order, each within the maximum."""
    text = " ".join(words)
    passages = split(text, max_tokens=max_tokens, overlap_tokens=min(overlap, max_tokens - 1), count_tokens=count)
    covered = 0
    for passage in passages:
        assert not text[covered : passage.start].strip()
        assert passage.text == text[passage.start : passage.end].strip()
        assert count([passage.text])[0] <= max_tokens
        assert passage.end > covered
        covered = passage.end
    assert not text[covered:].strip()


@given(stretches=STRETCHES, max_tokens=st.integers(2, 30), overlap=st.integers(0, 29))
def test_text_that_a_model_hardly_sees_is_kept_once_and_in_bounds(
    stretches: list[tuple[str, int]], max_tokens: int, overlap: int
) -> None:
    """Whatever a model makes of a text, all of it is in passages of bounded size, and what two share is bounded too."""
    text = "".join(part * times for part, times in stretches)
    overlap = min(overlap, max_tokens - 1)
    passages = split(text, max_tokens=max_tokens, overlap_tokens=overlap, count_tokens=count_words)
    times = [0] * len(text)
    covered = 0
    for passage in passages:
        assert not text[covered : passage.start].strip()
        assert passage.end - passage.start <= max_characters(max_tokens)
        assert covered - passage.start <= max_characters(overlap)
        covered = passage.end
        for at in range(passage.start, passage.end):
            times[at] += 1
    assert not text[covered:].strip()
    assert max(times, default=0) <= 2


@pytest.mark.parametrize(
    "text",
    ["y" * 600_000, f"{'y' * 90_000} " * 6, "!" * 90 + "y" * 600_000],
    ids=["one word", "six words", "dense, then one word"],
)
def test_text_without_spaces_is_stored_once(text: str) -> None:
    """A word that no passage holds is cut at their size, and nothing of it is repeated."""
    passages = split(text, max_tokens=200, overlap_tokens=32, count_tokens=count_words)
    assert sum(len(passage.text) for passage in passages) <= len(text)
    assert len(passages) <= len(text) / max_characters(200) + 7


@given(words=WORDS)
def test_splitting_is_stable(words: list[str]) -> None:
    """The same text gives the same passages, so their ids name the same words."""
    text = " ".join(words)
    first, second = (split(text, max_tokens=12, overlap_tokens=4, count_tokens=count) for _ in range(2))
    assert first == second


def test_passages_end_where_sentences_do() -> None:
    """Sentences are packed whole while they fit."""
    text = "One two three. Four five six. Seven eight nine."
    passages = split(text, max_tokens=6, overlap_tokens=0, count_tokens=count)
    assert [passage.text for passage in passages] == ["One two three. Four five six.", "Seven eight nine."]


def test_a_passage_repeats_the_end_of_the_one_before() -> None:
    """Overlap is whole sentences, as many as fit into it."""
    text = "One two three. Four five. Six seven eight."
    passages = split(text, max_tokens=6, overlap_tokens=2, count_tokens=count)
    assert [passage.text for passage in passages] == ["One two three. Four five.", "Four five. Six seven eight."]


def test_a_passage_that_is_nearly_full_ends_with_its_paragraph() -> None:
    """Rather than take one sentence of the next paragraph along."""
    text = "One two three four five six.\n\nSeven eight. Nine ten eleven twelve."
    passages = split(text, max_tokens=8, overlap_tokens=0, count_tokens=count)
    assert [passage.text for passage in passages] == [
        "One two three four five six.",
        "Seven eight. Nine ten eleven twelve.",
    ]


def test_hard_wrapped_lines_stay_together() -> None:
    """A line break inside a sentence is no boundary."""
    text = "one two\nthree four. five\nsix."
    passages = split(text, max_tokens=5, overlap_tokens=0, count_tokens=count)
    assert [passage.text for passage in passages] == ["one two\nthree four.", "five\nsix."]


def test_a_word_longer_than_a_passage_is_cut() -> None:
    """All of its characters are kept."""
    passages = split("x" * 103, max_tokens=2, overlap_tokens=0, count_tokens=count)
    assert "".join(passage.text for passage in passages) == "x" * 103
    assert max(count([passage.text])[0] for passage in passages) <= 2


@pytest.mark.parametrize("kind", ["one word", "one line", "word list", "dots", "four bytes a character"])
def test_megabytes_without_a_sentence_end_are_counted_in_small_texts(kind: str) -> None:
    """A server takes no text above 1 MiB, to count or to keep; nothing is lost, however few tokens a model sees."""
    texts = {
        "one word": "x",
        "one line": "word ",
        "word list": "word\n",
        "dots": ".",
        "four bytes a character": "\U00020000",
    }
    text = texts[kind] * (3_000_000 // len(texts[kind].encode()))

    def count_few(parts: Sequence[str]) -> list[int]:
        assert max(map(len, parts)) <= COUNTED_CHARACTERS
        return [len(part.split()) for part in parts]

    passages = split(text, max_tokens=200, overlap_tokens=32, count_tokens=count_few)
    covered = 0
    for passage in passages:
        assert not text[covered : passage.start].strip()
        assert len(passage.text.split()) <= 200
        assert len(passage.text.encode()) <= 1 << 20
        assert passage.end > covered
        covered = passage.end
    assert not text[covered:].strip()


@pytest.mark.parametrize("text", ["", "  \n\n \t"])
def test_blank_text_has_no_passages(text: str) -> None:
    """An empty passage would be found by nothing, or by everything."""
    assert split(text, max_tokens=5, overlap_tokens=0, count_tokens=count) == []


@pytest.mark.parametrize("overlap", [-1, 5])
def test_overlap_is_smaller_than_a_passage(overlap: int) -> None:
    """Otherwise no passage would get any further."""
    with pytest.raises(ValueError, match=re.escape("overlap_tokens must lie between 0 and")):
        split("a b", max_tokens=5, overlap_tokens=overlap, count_tokens=count)
