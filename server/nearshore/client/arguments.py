"""Arguments of calls as parts of requests. What no request can hold is refused by name, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ParamSpec, TypeVar, get_args

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from nearshore.client.messages import EmbedTruncation, Parts, Query, SpecialTokens
from nearshore.records import F32, Document, Scalar
from nearshore.v1 import document_service_pb2 as documents_pb
from nearshore.v1 import embedding_service_pb2 as embedding_pb
from nearshore.v1 import search_service_pb2 as search_pb
from nearshore.v1 import values_pb2
from nearshore.wire import document_message, vectors_message

Fields = ParamSpec("Fields")
Made = TypeVar("Made")
Item = TypeVar("Item")
Name = TypeVar("Name", bound=str)
Number = TypeVar("Number")

TRUNCATIONS: dict[EmbedTruncation, values_pb2.Truncation.ValueType] = {
    "cut_end": values_pb2.TRUNCATION_CUT_END,
    "cut_start": values_pb2.TRUNCATION_CUT_START,
    "refuse": values_pb2.TRUNCATION_REFUSE,
}
SPECIAL_TOKENS: dict[SpecialTokens, embedding_pb.SpecialTokens.ValueType] = {
    "bundle": embedding_pb.SPECIAL_TOKENS_UNSPECIFIED,
    "text": embedding_pb.SPECIAL_TOKENS_AS_TEXT,
    "parse": embedding_pb.SPECIAL_TOKENS_PARSE,
}
_TAKES = {
    FieldDescriptor.TYPE_STRING: "str",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int of 32 bits",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_DOUBLE: "float",
}
SHORTEST_TIMEOUT_S = 0.001
_NUMBERS = "fiub"  # numpy's kinds of dtype that become float32 as they are


def message(place: str, kind: Callable[Fields, Made], *args: Fields.args, **fields: Fields.kwargs) -> Made:
    """The message kind(**fields). Raises TypeError or ValueError that names the field, of which protobuf says nothing.

    place: where in the call the message stands, such as "queries[1]."; empty for the request itself.
    """
    for name, value in fields.items():
        if isinstance(value, bytes):  # protobuf would take them for text
            raise TypeError(f"{place}{name} is {value!r:.80}; it takes str.")
    try:
        return kind(*args, **fields)
    except (TypeError, ValueError):
        for name, value in fields.items():
            _check_field(place, kind, name, value)
        raise  # no field alone is the cause


def instance(name: str, value: Item, *kinds: type) -> Item:
    """The value itself. Raises TypeError for one of another type."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} is {value!r:.80}; it takes {_names(kinds)}.")
    return value


def seconds(name: str, value: float, *, least_s: float = 0.0, endless: bool = True) -> float:
    """A time of at least least_s, and with `endless` infinity, which is no limit. Raises TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r:.80}; it takes a number of seconds.")
    if not least_s <= value or (math.isinf(value) and not endless):
        most = 'float("inf") for no limit' if endless else "finite"
        raise ValueError(f"{name} is {value!r:.80}; it takes seconds, {least_s:g} or more, {most}.")
    return float(value)


def timeout(value: float) -> float:
    """The argument timeout_s, in seconds; infinity is no limit. Raises TypeError, ValueError."""
    return seconds("timeout_s", value, least_s=SHORTEST_TIMEOUT_S)


def size_bytes(name: str, value: int) -> int:
    """A size that gRPC can hold, which takes -1 for no limit and forgets higher bits. Raises TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r:.80}; it takes int.")
    if not 1 <= value < 1 << 31:
        raise ValueError(f"{name} is {value}; it takes 1 to {(1 << 31) - 1} bytes.")
    return value


def check_ordered(name: str, values: object, items: str) -> None:
    """Raise TypeError for what has no order by which the answer could go; items: what a list of them is wanted."""
    if isinstance(values, set | frozenset | Mapping):
        raise TypeError(f"{name} is {values!r:.80}; it takes a list of {items}: the answer goes by their order.")


def listed(name: str, values: Iterable[Item], *kinds: type, ordered: bool = True) -> list[Item]:
    """The items of an argument that takes several; ordered: what is answered goes by their order.

    Raises TypeError for anything else, above all for one text, of which each letter would be taken for an item.
    """
    if isinstance(values, str | bytes):
        raise TypeError(f"{name} is one {type(values).__name__}; it takes a list: {name}=[{values!r:.80}].")
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} is {values!r:.80}; it takes a list of {_names(kinds)}.")
    if ordered:
        check_ordered(name, values, _names(kinds))
    return [instance(f"{name}[{index}]", each, *kinds) for index, each in enumerate(values)]


def choice(name: str, value: Name, numbers: Mapping[Name, Number]) -> Number:
    """The number of one of several words. Raises ValueError that names all of them."""
    if not isinstance(value, str) or value not in numbers:
        raise ValueError(f"{name} is {value!r:.80}; it takes {' or '.join(repr(str(each)) for each in numbers)}.")
    return numbers[value]


def collection_name(name: str, bare: str) -> str:
    """The collection as requests name it; name: of the argument. Raises TypeError."""
    return f"collections/{instance(name, bare, str)}"


def model_name(bare: str) -> str:
    """The model as requests name it; empty for none. Raises TypeError."""
    return f"models/{bare}" if instance("model", bare, str) else ""


def vectors(name: str, given: F32 | None, fingerprint: str, ndim: int) -> values_pb2.Vectors | None:
    """Vectors (rows, dimensions), or with ndim 1 one vector (dimensions,), and what they mean; or nothing.

    Raises TypeError, ValueError.
    """
    instance("fingerprint", fingerprint, str)
    if given is None:
        return None
    if not isinstance(given, np.ndarray) or given.dtype.kind not in _NUMBERS:
        raise TypeError(f"{name} is {given!r:.80}; it takes a numpy array of floats: numpy.asarray(..., 'float32').")
    if given.ndim != ndim and given.shape[:-1] != (1,):  # one row is a vector as well
        wanted = "(rows, dimensions)" if ndim > 1 else "(dimensions,)"
        raise ValueError(f"{name} has the shape {given.shape}; it takes {wanted}.")
    return vectors_message(np.atleast_2d(given), fingerprint)


def documents(given: Sequence[Document]) -> list[documents_pb.Document]:
    """Documents as messages. Raises TypeError, ValueError, InvalidMetadataError."""
    return [_document(index, each) for index, each in enumerate(listed("documents", given, Document))]


def parts(name: str, given: Parts) -> documents_pb.DocumentParts:
    """Which parts of documents to answer. Raises TypeError."""
    instance(name, given, Parts)
    return message(
        f"{name}.", documents_pb.DocumentParts, text=given.text, metadata=given.metadata, vector=given.vector
    )


def search(name: str, given: Query | str) -> search_pb.SearchRequest:
    """One query, as yet of no collection. Raises TypeError, ValueError."""
    instance(name, given, Query, str)
    query = Query(text=given) if isinstance(given, str) else given
    _check_one_meant(name, query)
    place, kind = f"{name}.", search_pb.SearchRequest
    request = message(
        place,
        kind,
        vector=vectors(f"{name}.vector", query.vector, query.fingerprint, ndim=1),
        limit=query.limit,
        offset=query.offset,
        score_threshold=query.score_threshold,
        filter=query.filter,
        exact=query.exact,
        ef_search=query.ef_search,
        parts=parts(f"{name}.parts", query.parts),
        truncation=choice(f"{name}.truncation", query.truncation, TRUNCATIONS),
    )
    if query.text is not None:
        request.MergeFrom(message(place, kind, text=query.text))
    if query.document_id is not None:
        request.MergeFrom(message(place, kind, document_id=query.document_id))
    return request


def _check_one_meant(name: str, query: Query) -> None:
    """Refuse several of what a request holds one of: the last would replace the others. None: the server refuses it."""
    meant = {"text": query.text, "vector": query.vector, "document_id": query.document_id}
    found = [f"{name}.{field}" for field, value in meant.items() if value is not None]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} are given; a query takes exactly one of {', '.join(meant)}.")


def _document(index: int, source: Document) -> documents_pb.Document:
    place = f"documents[{index}]."
    for name in ("id", "text", "title", "parent_id"):
        instance(f"{place}{name}", getattr(source, name), str)  # protobuf would take bytes for text
    try:
        for key in source.metadata:
            instance("key", key, str)
        return document_message(source)
    except (TypeError, ValueError, AttributeError) as error:
        message(
            place,
            documents_pb.Document,
            id=source.id,
            text=source.text,
            title=source.title,
            parent_id=source.parent_id,
        )
        if isinstance(error, UnicodeEncodeError):
            raise _unencodable(f"{place}metadata", error) from None
        raise TypeError(
            f"{place}metadata is {source.metadata!r:.80}; it takes a dict of str to {_names(get_args(Scalar))} or a "
            "list of one of these."
        ) from None


def _check_field(place: str, kind: Any, name: str, value: Any) -> None:
    try:
        kind(**{name: value})
    except UnicodeEncodeError as error:
        raise _unencodable(f"{place}{name}", error) from None
    except (TypeError, ValueError) as error:
        takes = _TAKES.get(kind.DESCRIPTOR.fields_by_name[name].type, "another type")
        named = TypeError if isinstance(error, TypeError) else ValueError
        raise named(f"{place}{name} is {value!r:.80}; it takes {takes} ({error}).") from None


def _unencodable(name: str, error: UnicodeEncodeError) -> UnicodeEncodeError:
    """The same, which is a ValueError, with the argument's name."""
    reason = f"{error.reason}: {name} takes text that UTF-8 can hold"
    return UnicodeEncodeError(error.encoding, error.object, error.start, error.end, reason)


def _names(kinds: Iterable[type]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)
