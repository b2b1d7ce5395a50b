"""The Helm programs that render the chart in tests."""

import os

import pytest

from helm.generate import find_helms
from tests.chart.charts import Helm

WITHOUT = (
    "the chart's tests need Helm 3 or 4, on the PATH or named by HELM: make helm, or https://helm.sh/docs/intro/install"
)
ABSENT = pytest.param("", marks=pytest.mark.skip(WITHOUT))


@pytest.fixture(scope="session", params=find_helms() or [ABSENT], ids=os.path.basename)
def helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Each Helm that is there."""
    return Helm(request.param, tmp_path_factory.mktemp("helm"))
