"""What a process tells Prometheus. A leaf: it knows the names and counts, the parts tell it what happens."""

from nearshore.metrics.definitions import ALL, Definition, Kind
from nearshore.metrics.endpoint import Endpoint
from nearshore.metrics.figures import CollectionFigures, Figures
from nearshore.metrics.metrics import CallMeter, Metrics

__all__ = ["ALL", "CallMeter", "CollectionFigures", "Definition", "Endpoint", "Figures", "Kind", "Metrics"]
