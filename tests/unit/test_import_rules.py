"""Imports run one way; this is the rule that keeps the layers apart."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAVES = {"errors", "settings", "records", "bundle", "threads"}
# What each part may import of the others, besides the leaves named on the right.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "settings": {"errors", "model_names"},
    "records": {"errors"},
    "network": set(),
    "model_names": set(),
    "bundle": {"errors", "records", "network", "model_names"},
    "threads": set(),
    "logs": set(),
    "exit_codes": {"errors"},
    "garbage": set(),
    "metrics": {"errors"},
    "wire": {"errors", "records", "v1"},
    "store": {"errors", "records"},
    "index": {"errors", "records"},
    "embedding": {"errors", "records", "bundle"},
    "export": {"errors", "records", "bundle", "network", "model_names"},
    "replica": {"errors", "records", "store", "index"},
    "documents": {"errors", "records", "store", "index", "replica", "embedding", "bundle", "model_names"},
    "search": {"errors", "records", "store", "index", "replica", "embedding", "bundle", "documents"},
    "service": {"errors", "records", "documents", "search", "embedding", "bundle", "metrics", "wire", "v1"},
    "client": {"errors", "records", "wire", "v1"},
    "v1": set(),
}
ABOVE = {"__init__", "__main__", "app", "assembly", "chores", "cli", "closing", "gauges", "opening", "resources"}
ABOVE |= {"served_models", "serving"}
GRPC_USERS = {"service", "client", "app", "serving", "wire", "v1"}


def part_of(path: Path) -> str:
    """The part a module belongs to: its folder under nearshore, or its own name."""
    relative = path.relative_to(ROOT / "server" / "nearshore")
    return relative.parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


MODULES = sorted(path for path in (ROOT / "server" / "nearshore").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    """Only app and cli stand above the layers; everything else imports downwards."""
    part = part_of(path)
    if part in ABOVE:
        return
    allowed = MAY_IMPORT[part] | {part}
    for module in imported(path):
        names = module.split(".")
        if names[0] == "nearshore_indexer":
            pytest.fail(f"{path} imports the indexer")
        if names[0] == "nearshore" and len(names) > 1 and names[1] != "__version__":
            assert names[1] in allowed, f"{path} ({part}) imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_service_client_and_app_know_grpc(path: Path) -> None:
    """The layers below the service would run unchanged behind another protocol."""
    if part_of(path) in GRPC_USERS:
        return
    for module in imported(path):
        assert module.split(".")[0] not in {"grpc", "grpc_health", "grpc_reflection", "grpc_status"}, path
        assert not module.startswith(("nearshore.v1", "google.protobuf")), path


def test_only_the_postgresql_store_knows_psycopg() -> None:
    """Nothing above the store knows which one it is."""
    folder = ROOT / "server" / "nearshore" / "store" / "postgres"
    users = {path for path in MODULES if any(name.split(".")[0].startswith("psycopg") for name in imported(path))}
    assert users
    assert all(path.parent == folder for path in users)


def test_only_app_and_cli_read_settings() -> None:
    """Other layers get plain values, so that a test can make them without a configuration."""
    readers = {part_of(path) for path in MODULES if "nearshore.settings" in set(imported(path))}
    assert readers <= {"app", "assembly", "resources", "served_models", "serving", "cli"}
