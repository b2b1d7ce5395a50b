"""values.yaml and its schema: generated, complete, and those of this release."""

import json
from collections.abc import Iterator

import jsonschema
import pytest
import yaml

from helm import generate
from helm.sections import Section
from helm.values import Values
from nearshore import __version__


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for field in section.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _sections(field.annotation)


def test_values_are_fresh() -> None:
    """values.yaml is what helm/values.py gives: run make chart."""
    assert (generate.CHART / "values.yaml").read_text() == generate.make_values()


def test_the_schema_is_fresh() -> None:
    """values.schema.json is what helm/values.py and the server's settings give: run make chart."""
    assert json.loads((generate.CHART / "values.schema.json").read_text()) == generate.make_schema()


def test_values_are_the_models_defaults() -> None:
    """What Helm reads from values.yaml is what the model says, name for name."""
    written = yaml.safe_load((generate.CHART / "values.yaml").read_text())
    assert written == json.loads(Values().model_dump_json(by_alias=True))


@pytest.mark.parametrize("section", dict.fromkeys(_sections(Values)), ids=lambda section: section.__name__)
def test_every_value_is_described(section: type[Section]) -> None:
    """No value stands without a sentence."""
    for name, field in section.model_fields.items():
        assert (field.description or "").endswith((".", "options")), f"{section.__name__}.{name}"


def test_the_schema_accepts_the_defaults() -> None:
    """The schema is one, and the defaults keep to it."""
    schema = generate.make_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(generate.make_values()), schema, cls=jsonschema.Draft7Validator)


def test_the_chart_installs_this_release() -> None:
    """appVersion, the default tag of the image, is the version of the package beside it."""
    assert yaml.safe_load((generate.CHART / "Chart.yaml").read_text())["appVersion"] == __version__
