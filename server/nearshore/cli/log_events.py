"""Every event that the program can log, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nearshore

LEVELS = {
    "critical": "critical",
    "exception": "error",  # with a traceback in the field `exception`
    "error": "error",
    "warning": "warning",
    "info": "info",
    "debug": "debug",
    "log": "info or debug",
}
ORDER = ("critical", "error", "warning", "info", "info or debug", "debug")
LOGGERS = ("log", "_log", "bound")  # what loggers are called here


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One call of a logger."""

    event: str  # empty: the message of an error of docs/errors.md
    level: str
    fields: tuple[str, ...]
    module: str
    remedy: str  # where it is the same every time

    @property
    def advises(self) -> bool:
        """Whether the line says what to do."""
        return "remedy" in self.fields


def log_events() -> list[LogEvent]:
    """All events, the most severe first. Raises ValueError for one that is no constant, and so cannot be looked up."""
    root = Path(nearshore.__file__).parent
    found: set[LogEvent] = set()
    for path in root.rglob("*.py"):
        if path.relative_to(root).parts[0] != "v1":
            module = ".".join(("nearshore", *path.relative_to(root).with_suffix("").parts))
            found.update(events_of(ast.parse(path.read_text(encoding="utf-8")), module))
    return sorted(found, key=lambda each: (ORDER.index(each.level), each.event.lower(), each.module))


def events_of(tree: ast.Module, module: str) -> Iterator[LogEvent]:
    """The events of one module, in no order. Raises ValueError as log_events()."""
    constants = dict(_constants(tree.body))
    bound = dict(_bound_fields(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Attribute(owner, method), [_, *_]) if method in LEVELS and _is_logger(owner):
                yield _event(node, LEVELS[method], module, bound.get(ast.unparse(owner), ()), constants)


def _event(call: ast.Call, level: str, module: str, bound: Iterable[str], constants: Mapping[str, str]) -> LogEvent:
    said = call.args[-1]
    is_message = isinstance(said, ast.Attribute) and said.attr == "message"  # of an error
    event = "" if is_message else _text(said, constants)
    fields = {keyword.arg: keyword.value for keyword in call.keywords}
    if None in fields or not (event or is_message):
        raise ValueError(f"{module}:{call.lineno}: write out the event and its fields, as docs/logs.md lists them")
    names = [name for name in (*bound, *fields) if name and name != "exc_info"]
    if "exc_info" in fields or (isinstance(call.func, ast.Attribute) and call.func.attr == "exception"):
        names.append("exception")
    remedy = fields.get("remedy")
    return LogEvent(event, level, tuple(names), module, _text(remedy, constants) if remedy else "")


def _is_logger(node: ast.expr) -> bool:
    """Whether it is `log`, `self._log` or the like."""
    match node:
        case ast.Name(name) | ast.Attribute(_, name):
            return name in LOGGERS
    return False


def _text(node: ast.expr, constants: Mapping[str, str]) -> str:
    """What a literal or a constant of the module says; empty for anything else."""
    match node:
        case ast.Constant(value):
            return str(value)
        case ast.Name(name):
            return constants.get(name, "")
    return ""


def _constants(body: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in body:
        match node:
            case ast.Assign([ast.Name(name)], ast.Constant(str(value))):
                yield name, value


def _bound_fields(tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of each `bound = log.bind(collection=...)` the fields that all its lines carry."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign([target], ast.Call(ast.Attribute(owner, "bind"), _, keywords)) if _is_logger(owner):
                yield ast.unparse(target), tuple(keyword.arg for keyword in keywords if keyword.arg)
