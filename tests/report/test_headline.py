"""What a short report leaves out: what is nowhere a number."""

import numpy as np

from stratoscope.charts.variable import variables_of
from stratoscope.record import Entry
from stratoscope.record.quantity import quantity
from stratoscope.report.headline import headline, pictured
from stratoscope.report.html import to_html
from stratoscope.report.table import table_of


def test_what_is_nowhere_finite_comes_last_and_gets_no_picture(synthetic):
    layers = {"dims": "layer", "coords": {"layer": ["a", "b", "c"]}, "units": "1"}
    record = synthetic.record_of(
        Entry("p", "slope", quantity([np.nan] * 3, long_name="a slope", headline=1, **layers)),
        Entry("p", "rank", quantity([1.0, np.nan, 3.0], long_name="a rank", headline=2, **layers)),
    )
    table = table_of(record)
    assert [column.key for column in headline(table, table.rows)][:2] == ["rank", "slope"]
    assert pictured(list(variables_of(record, "p").values())) == {"rank"}
    assert "No value is finite" not in to_html(record)
    assert "No value is finite" in to_html(record, all_charts=True)
