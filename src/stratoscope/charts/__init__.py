"""Pictures of a record: values that are specified once, and three renderers (SVG, JSON, matplotlib)."""

from stratoscope.charts.build import charts_of
from stratoscope.charts.json import to_json
from stratoscope.charts.svg import to_svg
from stratoscope.charts.values import Axis, Band, Boxes, Cells, Chart, Dots, Line, Mark, Number, Rule

__all__ = [
    "Axis",
    "Band",
    "Boxes",
    "Cells",
    "Chart",
    "Dots",
    "Line",
    "Mark",
    "Number",
    "Rule",
    "charts_of",
    "to_json",
    "to_svg",
]
