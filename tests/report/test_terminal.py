import io

import numpy as np
import pytest
from rich.console import Console

from stratoscope.findings import Finding, Outcome
from stratoscope.record import Entry
from stratoscope.record.combine import compare
from stratoscope.record.quantity import quantity
from stratoscope.report.terminal import print_comparison, print_instruments, print_report


def said(record, width=80, encoding="utf-8", show=print_report, **options):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    show(record, Console(file=file, width=width, highlight=False, **options))
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_report_fits_and_puts_findings_first(whole, width):
    text = said(whole, width)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    assert "1 issue" in lines[1]
    assert text.index("UN001") < text.index("SP001") < text.index("Weights") < text.index("Coverage")
    assert "lower the learning rate" in text
    assert "TR001" not in text


def test_every_table_row_is_one_line(whole):
    for width in (80, 120):
        lines = said(whole, width).splitlines()
        for n in range(4):
            assert sum(f"body.{n}.fc.weight" in line for line in lines) == 1
            assert (
                sum(
                    line.strip().startswith((f"body.{n}.relu ", f"• body.{n}.relu ")) and ":" not in line
                    for line in lines
                )
                == 1
            )


def test_numbers_are_those_of_the_record_and_are_never_cut(whole):
    text = said(whole, 80)
    accuracy = float(whole["performance"]["accuracy"].sel(split="train").isel(step=-1))
    line = next(line for line in text.splitlines() if "accuracy (train)" in line)
    assert f"{accuracy:.3g}" in line
    assert "█" in line


def test_an_old_encoding_gets_plain_signs(whole):
    text = said(whole, encoding="ascii")
    assert "x 1 issue" in text
    assert "> lower the learning rate" in text
    assert "#" in text
    assert "*" in text


def test_a_pipe_gets_no_colour_and_a_terminal_does(whole):
    assert "\x1b[" not in said(whole)
    assert "\x1b[" in said(whole, force_terminal=True)


def test_names_are_text_and_not_markup(synthetic):
    name = "[bold]x[/bold][link=http://a]"
    found = [Finding("XX001", "p", name, 0, Outcome.ISSUE, f"{name} is odd", f"do [red]{name}", {"[b]": 1.0}, "")]
    entry = Entry(
        "p", "x", quantity([1.0, 2.0], units="1", long_name="[i]x", dims="layer", coords={"layer": [name, "b"]})
    )
    text = said(synthetic.record_of(entry, findings=found, meta={"name": "[red]net"}), 120)
    assert text.count("[bold]x[/bold]") >= 2
    assert "[red]net" in text


def test_control_characters_of_a_name_do_not_reach_the_terminal(synthetic):
    found = [Finding("XX001", "p", None, 0, Outcome.ISSUE, "a\x1b]0;title\x07b\x1b[2J", "", {}, "")]
    text = said(synthetic.record_of(findings=found), force_terminal=True)
    assert "\x1b]0" not in text
    assert "\x1b[2J" not in text


def test_an_empty_record_is_a_few_lines(synthetic):
    text = said(synthetic.record_of())
    assert "Nothing was judged" in text
    assert len(text.splitlines()) < 8


def test_many_layers_and_findings_are_cut_with_a_count(synthetic):
    names = [f"layer{n}" for n in range(300)]
    entry = Entry("p", "x", quantity(np.arange(300.0), units="1", long_name="x", dims="layer", coords={"layer": names}))
    found = [Finding("XX001", "p", name, 0, Outcome.ISSUE, f"{name} is odd", "do", {}, "") for name in names[250:]]
    text = said(synthetic.record_of(entry, findings=found))
    assert "270 more rows" in text
    assert "the worst of 50: also layer251, layer252, layer253 and 46 more" in text
    assert text.count("XX001") == 1
    assert "layer251 " in text
    assert len(text.splitlines()) < 120


def test_many_statements_are_cut_with_a_count(synthetic):
    found = [Finding(f"XX{n:03}", "p", None, 0, Outcome.TIP, f"{n} is odd", "do", {}, "") for n in range(1, 26)]
    text = said(synthetic.record_of(findings=found))
    assert "XX020" in text
    assert "XX021" not in text
    assert "... and 5 more" in text


def test_where_the_record_lies_is_said(synthetic, tmp_path):
    from stratoscope.record import Record, RecordWriter

    folder = tmp_path / "run"
    RecordWriter.create(folder).close()
    assert str(folder) in said(Record.open(folder), 300)


def test_instruments_are_listed_with_their_codes():
    row = {"key": "units", "title": "Unit census", "source": "arXiv:1811.05381", "requires": ["UnitCounts()"], "uses": [],
           "cost": "shares the one pass", "settings": {"low": 0.1}, "codes": {"UN001": "dead [b]units"}}  # fmt: skip
    text = said([row], show=print_instruments)
    assert "dead [b]units" in text
    assert "low=0.1" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_comparison_shows_the_largest_change(synthetic):
    def run(value):
        values = quantity([1.0, value], units="nat", long_name="x", dims="layer", coords={"layer": ["a", "b"]})
        return synthetic.record_of(Entry("p", "x", values), Entry("p", "y", quantity(1.0, units="1", long_name="y")))

    differences = compare(run(2.0), run(5.0))
    text = said(differences, show=lambda d, console: print_comparison(d, "first", "second", 20, console))
    assert "1 of 2 variables" in text
    assert "changed" in text.splitlines()[3]
    line = next(line for line in text.splitlines() if "p.x" in line)
    assert all(part in line for part in ("nat", "b", "2", "5", "+3", "1/2"))
    same = said(
        compare(run(2.0), run(2.0)), show=lambda d, console: print_comparison(d, "first", "second", 20, console)
    )
    assert "0 of 2 variables" in same
