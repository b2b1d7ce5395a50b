"""The Helm programs that render the chart in tests."""

from pathlib import Path

import pytest

from helm.generate import find_helms
from tests.chart.charts import Helm

WITHOUT = (
    "the chart's tests need Helm 3 or 4, on the PATH or named by HELM: make helm, or https://helm.sh/docs/intro/install"
)
PROGRAMS = [pytest.param(each, id=Path(each).name) for each in find_helms()]
ABSENT = [pytest.param("", marks=pytest.mark.skip(WITHOUT))]


@pytest.fixture(scope="session", params=PROGRAMS or ABSENT)
def helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Each Helm that is there."""
    return Helm(request.param, tmp_path_factory.mktemp("helm"))
