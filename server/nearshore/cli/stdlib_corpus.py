"""The documentation strings of the installed Python standard library, as JSON lines on standard output.

One document for every documented public object: module, function, class, method and property. Its text is the call
line and the first paragraph, which by PEP 257 says what the object does; what follows (parameters, examples, history)
makes the vectors of unlike objects alike. Importing the whole library is done in a process of its own:
python -m nearshore.cli.stdlib_corpus
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import inspect
import io
import json
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# Modules that open a window, print a poem, are tests, or are the implementation of another, public one.
_SKIPPED = {
    "antigravity", "genericpath", "idlelib", "lib2to3", "nt", "ntpath", "posix", "posixpath", "pyclbr", "pydoc_data",
    "sre_compile", "sre_constants", "sre_parse", "test", "this", "turtledemo",
}  # fmt: skip
_SKIPPED_PARTS = {"test", "tests", "__main__", "idle_test"}
_ALSO = ("os.path",)  # public, but found by no walk
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_MAX_SIGNATURE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Described:
    """One documented object."""

    name: str  # qualified: shutil.copytree; without "builtins."
    kind: str  # module, function, class, method or property
    module: str
    text: str  # call line and summary


def main() -> None:
    """Write one JSON line for each object."""
    out = sys.stdout
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        described = list(describe())
    for one in described:
        metadata = {"module": one.module, "kind": one.kind, "source": f"Python {sys.version.split()[0]}"}
        record = {"id": one.name, "title": one.name, "text": one.text, "metadata": metadata}
        out.write(json.dumps(record, ensure_ascii=False) + "\n")


def describe() -> Iterator[Described]:
    """Every documented public object of the standard library, each once, under its most public name."""
    modules = [module for name in module_names() if (module := _imported(name)) is not None]
    places: dict[int, tuple[tuple[int, int, str], ModuleType, str, Any]] = {}
    for module in modules:
        for rank, name, value in _members(module):
            key = (rank, module.__name__.count("."), module.__name__)
            if id(value) not in places or key < places[id(value)][0]:
                places[id(value)] = (key, module, name, value)
    seen: set[str] = set()
    for module in modules:
        if doc := _doc(module):
            seen.add(_public(module))
            yield Described(_public(module), "module", _public(module), _summary(doc))
    for _, module, name, value in places.values():
        for one in _describe_member(module, name, value):
            if one.name not in seen:
                seen.add(one.name)
                yield one


def module_names() -> list[str]:
    """Dotted names of the public modules that are installed, packages walked."""
    names = list(_ALSO)
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in _SKIPPED:
            continue
        names.append(name)
        module = _imported(name)
        for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}.", onerror=lambda _: None):
            parts = found.name.split(".")
            if not any(part.startswith("_") or part in _SKIPPED_PARTS for part in parts):
                names.append(found.name)
    return names


def _imported(name: str) -> ModuleType | None:
    """The module, or None where this installation cannot import it (no Tk, another platform)."""
    try:
        module = importlib.import_module(name)
    except BaseException:  # a module may raise anything, even SystemExit, when it is imported
        return None
    return module


def _members(module: ModuleType) -> Iterator[tuple[int, str, Any]]:
    """Public functions and classes as (rank, name, value): rank 0 is how everybody calls it."""
    exported = dir(builtins) if module is builtins else getattr(module, "__all__", None)
    own = {module.__name__, f"_{module.__name__}", None}
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        if exported is not None and name in exported:
            yield (0 if module is builtins else 1), name, value
        elif exported is None and getattr(value, "__module__", None) in own:
            yield 2, name, value


def _describe_member(module: ModuleType, name: str, value: Any) -> Iterator[Described]:
    home = _public(module)
    prefix = "" if home == "builtins" else f"{home}."
    kind = "class" if inspect.isclass(value) else "function"
    if text := _doc(value):
        yield Described(prefix + name, kind, home, _with_signature(name, value, text))
    if not inspect.isclass(value):
        return
    for attribute, raw in sorted(vars(value).items()):
        member = raw.__func__ if isinstance(raw, classmethod | staticmethod) else raw
        is_method = inspect.isroutine(member)
        if attribute.startswith("_") or not (is_method or isinstance(member, property)):
            continue
        if text := _doc(member):
            full = f"{prefix}{name}.{attribute}"
            described = _with_signature(attribute, member, text) if is_method else _summary(text)
            yield Described(full, "method" if is_method else "property", home, described)


def _public(module: ModuleType) -> str:
    return "os.path" if module.__name__ in {"posixpath", "ntpath"} else module.__name__


def _doc(value: Any) -> str:
    """An object's own documentation, cleaned of indentation; empty where it has none."""
    doc = getattr(value, "__doc__", None)
    return inspect.cleandoc(doc).strip().replace("\0", "") if isinstance(doc, str) else ""


def _summary(doc: str) -> str:
    return doc.split("\n\n", 1)[0]


def _with_signature(name: str, value: Any, doc: str) -> str:
    """Call line and summary. Documentation of C functions often begins with the call line."""
    if doc.startswith(f"{name}("):
        return "\n\n".join(doc.split("\n\n", 2)[:2])
    try:
        signature = _ADDRESS.sub("", str(inspect.signature(value)))
    except Exception:  # a text signature may name what its module lacks
        return _summary(doc)
    if len(signature) > _MAX_SIGNATURE_CHARACTERS:
        signature = "(...)"
    return f"{name}{signature}\n\n{_summary(doc)}"


if __name__ == "__main__":
    main()
