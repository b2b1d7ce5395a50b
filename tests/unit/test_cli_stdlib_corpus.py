"""The corpus of the demo: the documentation strings of the standard library that runs the tests."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, str]]:
    """The documents, read in a process of their own as the demo does."""
    ended = subprocess.run(
        [sys.executable, "-m", "nearshore.cli.stdlib_corpus"], capture_output=True, check=True, timeout=60
    )
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_thousands_of_objects_are_described_once(corpus: list[dict[str, str]]) -> None:
    """Each has a text, a kind and its module."""
    assert len(corpus) > 3_000
    assert len({document["id"] for document in corpus}) == len(corpus)
    assert all(document["text"].strip() for document in corpus)


@pytest.mark.parametrize(
    "name", ["shutil.copytree", "str.strip", "os.path.join", "asyncio.sleep", "heapq", "socket.socket", "len"]
)
def test_objects_are_called_what_people_call_them(name: str, corpus: list[dict[str, str]]) -> None:
    """Neither by the module that implements them nor by one that imports them."""
    assert name in {document["id"] for document in corpus}


def test_private_names_are_left_out(corpus: list[dict[str, str]]) -> None:
    """No part of a name begins with an underscore, so no dunder either."""
    private = [document["id"] for document in corpus if any(part.startswith("_") for part in document["id"].split("."))]
    assert private == []
