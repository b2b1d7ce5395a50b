"""The derived index of a collection: vectors, graph, filter columns; searched through immutable views."""

from nearshore.index.build import BuildPlan, Built
from nearshore.index.saved import save
from nearshore.index.sealed import BuildCancelled
from nearshore.index.segment import IndexOptions, Segment
from nearshore.index.view import Found, IndexView

__all__ = ["BuildCancelled", "BuildPlan", "Built", "Found", "IndexOptions", "IndexView", "Segment", "save"]
