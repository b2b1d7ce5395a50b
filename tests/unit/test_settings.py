"""Settings: precedence, and that nothing misspelt passes in silence."""

import os
from pathlib import Path

import pytest

from nearshore.errors import InvalidSettingsError
from nearshore.settings import load_settings, setting_names, variable_of


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NEARSHORE_")]:
        monkeypatch.delenv(name)


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source overrides only the fields that it names."""
    file = tmp_path / "nearshore.toml"
    file.write_text("[server]\nport = 1\ngrace_s = 1.0\nmax_message_bytes = 100000\n")
    monkeypatch.setenv("NEARSHORE_SERVER__PORT", "2")
    monkeypatch.setenv("NEARSHORE_SERVER__GRACE_S", "2")
    server = load_settings(file, server__port=3, server__host=None).server
    assert (server.port, server.grace_s, server.max_message_bytes, server.host) == (3, 2.0, 100_000, "127.0.0.1")


def test_the_environment_can_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NEARSHORE_CONFIG works like --config."""
    file = tmp_path / "nearshore.toml"
    file.write_text("[server]\nport = 1\n")
    monkeypatch.setenv("NEARSHORE_CONFIG", str(file))
    assert load_settings().server.port == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("NEARSHORE_SERVER__PROT", "1", "Did you mean NEARSHORE_SERVER__PORT?"),
        ("NEARSHORE_PORT", "1", "Did you mean NEARSHORE_SERVER__PORT?"),
        ("NEARSHORE_DATADIR", "/x", "Did you mean NEARSHORE_DATA_DIR?"),
        ("NEARSHORE_SERVER_PORT", "1", "Did you mean NEARSHORE_SERVER__PORT?"),
        ("NEARSHORE_EMBEDING__MODEL", "tiny", "Did you mean NEARSHORE_EMBEDDING__MODEL?"),
        ("NEARSHORE_INDEX__EFSEARCH", "1", "Did you mean NEARSHORE_INDEX__EF_SEARCH?"),
        ("NEARSHORE_SERVER__PORT", "many", "server.port is 'many'"),
        ("NEARSHORE_SERVER__PORT", "70000", "less than or equal to 65535"),
        ("NEARSHORE_LOG__LEVEL", "loud", "log.level"),
        ("NEARSHORE_SERVER", "{", "server"),
        ("NEARSHORE_EMBEDDING__MODELS", "one, ../two", "the name of a model is"),
        ("NEARSHORE_EMBEDDING__MODELS", "[one", "embedding.models"),
    ],
)
def test_a_wrong_variable_is_refused(variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable or setting at fault, and the right one where there is one close to it."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettingsError) as refused:
        load_settings()
    assert said in str(refused.value)


@pytest.mark.parametrize("value", ["one, two", '["one","two"]'])
def test_a_list_of_models_is_a_text_in_the_environment(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person writes it, and as the chart does; a file has a list."""
    monkeypatch.setenv("NEARSHORE_EMBEDDING__MODELS", value)
    assert load_settings().embedding.models == ("one", "two")
    assert load_settings(embedding__models=["three"]).embedding.models == ("three",)


@pytest.mark.parametrize("variable", ["NEARSHORE_FOO", "NEARSHORE_SERVER__FOO", "NEARSHORE_X", "NEARSHORE_INDEX__IT"])
def test_nothing_is_suggested_that_is_not_near(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What all variables, or all of a section, begin with makes no likeness."""
    monkeypatch.setenv(variable, "1")
    with pytest.raises(InvalidSettingsError, match=f"{variable} is no setting") as refused:
        load_settings()
    assert "Did you mean" not in str(refused.value)
    assert "docs/settings.md" in refused.value.remedy


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NEARSHORE_SERVICE_HOST", "10.0.0.1"),
        ("NEARSHORE_SERVICE_PORT_GRPC", "50051"),
        ("NEARSHORE_PORT", "tcp://10.0.0.1:50051"),
        ("NEARSHORE_HEADLESS_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("NEARSHORE_TEST_DATA", "/corpora"),
    ],
)
def test_what_kubernetes_and_tests_set_is_let_pass(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service called nearshore puts variables of that prefix into every pod beside it."""
    monkeypatch.setenv(variable, value)
    assert load_settings().server.port == 50051


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[server]\nprot = 1\n", "server.prot is no setting. Did you mean server.port?"),
        ("retention_s = 1\n", "Did you mean store.retention_s?"),
        ("[server\n", "not valid TOML"),
        ("[store]\nretention_s = 1\n", "store.retention_s is 1"),
    ],
)
def test_a_wrong_file_is_refused(content: str, said: str, tmp_path: Path) -> None:
    """Unknown names and impossible values in the file are refused like those of flags."""
    file = tmp_path / "nearshore.toml"
    file.write_text(content)
    with pytest.raises(InvalidSettingsError) as refused:
        load_settings(file)
    assert said in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A server with defaults in place of a mistyped file would serve the wrong data folder."""
    with pytest.raises(InvalidSettingsError, match=r"missing\.toml cannot be read"):
        load_settings(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    "content",
    [
        '[store]\nurl = "mysql://me:hunter2@host/db"\n',
        '[store]\nurl = "postgresql:/me:hunter2@host/db"\n',
        '[store]\nurl = ["hunter2"]\n',
        'store = "postgresql://me:hunter2@host/db"\n',
        'store = "postgresql://host/db?password=hunter2"\n',
        'store = "hunter2"\n',
        '[server]\nport = "postgresql://me:hunter2@host/db"\n',
        '[server]\nport = "postgresql://host/db?password=hunter2"\n',
        '[server]\nport = "host=h password=hunter2"\n',
        '[server]\nport = {url = "hunter2"}\n',
    ],
)
def test_a_refusal_does_not_show_a_password(content: str, tmp_path: Path) -> None:
    """The message, which ends in a log, and the error below it name the setting and leave the secret out."""
    file = tmp_path / "nearshore.toml"
    file.write_text(content)
    with pytest.raises(InvalidSettingsError, match=r"store|server\.port") as refused:
        load_settings(file)
    assert "hunter2" not in f"{refused.value} {refused.value.__cause__}"


@pytest.mark.parametrize("value", ['"postgresql://host/db?password=hunter2"', "postgresql://me:hunter2@host/db"])
def test_a_refused_variable_does_not_show_a_password(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL in NEARSHORE_STORE, where NEARSHORE_STORE__URL was meant, is refused without being shown."""
    monkeypatch.setenv("NEARSHORE_STORE", value)
    with pytest.raises(InvalidSettingsError, match="store") as refused:
        load_settings()
    assert "hunter2" not in f"{refused.value} {refused.value.__cause__}"


def test_the_url_of_the_store_is_not_printed_with_the_settings() -> None:
    """Whoever logs the settings as a whole does not log the password."""
    settings = load_settings(store__url="  postgresql://me:hunter2@host/db\n")
    assert settings.store.url == "postgresql://me:hunter2@host/db"  # a Secret made by echo ends in a line feed
    assert "hunter2" not in repr(settings)


def test_folders_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder means the same place in every message and for every process."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = load_settings(data_dir="~/data", model_dir="models")
    assert (settings.data_dir, settings.model_dir) == (tmp_path / "data", tmp_path / "models")


def test_every_setting_has_a_variable_and_a_meaning() -> None:
    """The reference can show each setting."""
    for name, field in setting_names().items():
        assert variable_of(name).startswith("NEARSHORE_")
        assert field.description, name
