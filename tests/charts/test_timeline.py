"""The phase timeline as a picture and as signs: what it holds, what it says, and that every renderer draws it."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest

from stratoscope.charts import Cells, charts_of, colours, to_json, to_svg
from stratoscope.charts.kinds.timeline import COLUMNS, ROWS
from stratoscope.charts.strips import NOTHING, timeline_of
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity

PHASES = ["fitting", "compression", "flat", "falling", "rising", "noise", "learned"]
LETTERS = ["F", "C", "-", "\\", "/", "N", "l"]
TOLD_BY = [["information"], ["information"], ["information", "reconstruction"], ["reconstruction"], ["reconstruction"],
           ["spectrum"], ["spectrum"]]  # fmt: skip
THEORIES = ["information", "reconstruction", "spectrum"]
NAN = np.nan

TURNS = {"turn": 2.0, "turn_low": 1.0, "turn_high": 4.0}


def place(layers, theories, **attrs):
    return {"units": "1", "dims": ("layer", "theory"), "coords": {"layer": layers, "theory": theories}, **attrs}


def record_of(codes, steps, layers=None, theories=THEORIES, turns=None):
    """A record whose group `timeline` holds codes[step, layer, theory]."""
    codes = np.asarray(codes, dtype=float)
    layers = layers or [f"net.{n}.conv" for n in range(codes.shape[1])]
    writer = RecordWriter.create(None)
    about = {"flag_values": list(range(7)), "flag_meanings": PHASES, "letters": LETTERS, "told_by": TOLD_BY}
    for number, step in enumerate(steps):
        what = place(layers, theories, long_name="phase", chart="timeline", **about)
        entries = [Entry("timeline", "phase", quantity(codes[number], **what))]
        if number == len(steps) - 1:
            aside = place(layers, theories, chart="none", long_name="aside")
            turned = ~np.isnan(codes).all(0) & (codes[0] != codes[-1]) if turns is None else turns
            entries += [
                Entry("timeline", name, quantity(np.where(turned, value, NAN), **aside))
                for name, value in TURNS.items()
            ]
            said = np.where(np.isnan(codes).all(0), 0, np.where(turned, 2, 1))
            meanings = ["says nothing", "no second phase found", "second phase found"]
            entries.append(
                Entry("timeline", "answer", quantity(said, flag_values=[0, 1, 2], flag_meanings=meanings, **aside))
            )
            why = ["why it is silent", "why there is none", "what it rests on"]
            entries.append(
                Entry("timeline", "reason", quantity(said, flag_values=[0, 1, 2], flag_meanings=why, **aside))
            )
        writer.commit(step, entries)
    return Record.from_writer(writer)


SIMPLE = [
    [[0, 3, 5], [0, 2, NAN]],
    [[0, 3, 5], [0, 2, NAN]],
    [[1, 4, 6], [1, 2, NAN]],
    [[1, 4, 6], [1, 2, NAN]],
]
"""Four steps of two layers: everything turns in the first, and the spectrum says nothing in the second."""


def chart_of(record):
    (chart,) = charts_of(record)
    return chart


def test_layers_are_rows_and_theories_are_strips():
    chart = chart_of(record_of(SIMPLE, [0, 1, 2, 1500]))
    assert (chart.kind, chart.id) == ("timeline", "timeline-phase-timeline")
    assert chart.y.labels == ("net.0.conv", "net.1.conv")
    assert chart.x.labels == ("0", "1", "2", "1,500")
    (cells,) = chart.marks
    assert isinstance(cells, Cells)
    assert cells.strips == ("information", "reconstruction", "spectrum")
    np.testing.assert_array_equal(
        cells.values,
        [[0, 0, 1, 1], [3, 3, 4, 4], [5, 5, 6, 6], [0, 0, 1, 1], [2, 2, 2, 2], [NAN] * 4],
    )
    assert "in each row from the top: information, reconstruction, spectrum." in chart.caption
    assert "By information, layers end in compression (2); 2 of 2 turned." in chart.caption
    assert "By reconstruction, layers end in rising (1), flat (1); 1 of 2 turned." in chart.caption
    assert chart.caption.endswith("Hatched: nothing is said; empty: not looked at.")


def test_what_nobody_speaks_of_has_no_row():
    codes = np.full((3, 4, 3), NAN)
    codes[:, 1, 0] = 0
    chart = chart_of(record_of(codes, [5, 6, 7]))
    assert chart.y.labels == ("net.1.conv",)
    assert chart.marks[0].strips == ("information",)
    assert "Of 3 further layers no theory says anything." in chart.caption
    assert charts_of(record_of(np.full((3, 4, 3), NAN), [5, 6, 7])) == []
    assert timeline_of(record_of(np.full((3, 4, 3), NAN), [5, 6, 7])) is None
    assert timeline_of(record_of(SIMPLE, [0, 1, 2, 3]), "other") is None


@pytest.mark.parametrize(("layers", "steps"), [(1, 1), (1, 3), (8, 20), (100, 400)])
def test_every_renderer_draws_it(layers, steps, tmp_path):
    codes = np.zeros((steps, layers, 3))
    codes[steps // 2 :, :, 0] = 1
    codes[:, :, 1] = 3 + (np.arange(steps) > steps // 3)[:, None]
    codes[: steps // 4, :, 2] = NAN
    codes[steps // 4 :, :, 2] = 6
    chart = chart_of(record_of(codes, range(steps)))
    assert len(chart.marks[0].values) == layers * 3
    assert len(chart.x.labels) == min(steps, COLUMNS)
    assert (chart.x.labels[0], chart.x.labels[-1]) == ("0", str(steps - 1))
    picture = to_svg(chart)
    ground = picture.count('class="ss-run"') - picture.count('width="10" height="10"')
    assert ground >= layers * 3
    assert "net.0.conv, information: " in picture
    assert "NaN" not in picture.replace("NaN or infinite", "")
    cells = to_json(chart)["marks"][0]
    assert cells["strips"] == ["information", "reconstruction", "spectrum"]
    assert [len(pair) for pair in cells["shades"]] == [2] * 7
    json.dumps(to_json(chart), allow_nan=False)
    mpl = pytest.importorskip("stratoscope.charts.mpl")
    mpl.save(chart, tmp_path / "timeline.png", dpi=40)
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_strips_do_not_overlap_and_fill_their_rows():
    picture = to_svg(chart_of(record_of(SIMPLE, [0, 1, 2, 3])))
    inside = re.findall(
        r'class="ss-run" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"><title>([^<]+)', picture
    )
    rows = sorted({(float(y), float(y) + float(high)) for _, y, _, high, _ in inside})
    assert len(rows) == 5
    for (_, bottom), (top, _) in pairwise(rows):
        assert bottom <= top
    said = [title for *_, title in inside]
    assert "net.0.conv, information: fitting, step 0 to 1" in said
    assert "net.1.conv, reconstruction: flat, step 0 to 3" in said


def test_what_a_theory_did_not_look_at_is_empty_and_no_gap():
    record = record_of(SIMPLE, [0, 1, 2, 3])
    assert chart_of(record).marks[0].blank == ()
    assert to_svg(chart_of(record)).count('fill="url(#') == 1
    aside = {"dims": ("layer", "theory"), "coords": {"layer": ["net.0.conv", "net.1.conv"], "theory": THEORIES}}
    about = {
        "units": "1",
        "long_name": "answer",
        "chart": "none",
        "flag_values": [0],
        "flag_meanings": ["says nothing"],
    }
    nobody = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, NAN]])
    writer = RecordWriter.create(None)
    for step, codes in enumerate(SIMPLE):
        variable = record["timeline"].variable("phase")
        entries = [Entry("timeline", "phase", quantity(np.asarray(codes), **(aside | dict(variable.attrs))))]
        writer.commit(step, [*entries, Entry("timeline", "answer", quantity(nobody, **(aside | about)))])
    chart = chart_of(Record.from_writer(writer))
    assert chart.marks[0].blank == (5,)
    assert to_svg(chart).count('fill="url(#') == 0


def test_names_are_escaped():
    picture = to_svg(chart_of(record_of(SIMPLE, [0, 1, 2, 3], layers=["<b>", "a&b"])))
    assert "<b>" not in picture
    assert "a&amp;b" in picture


def test_more_layers_than_a_picture_takes_make_several():
    codes = np.zeros((3, ROWS + 1, 3))
    found = charts_of(record_of(codes, [0, 1, 2]))
    assert [len(chart.y.labels) for chart in found] == [ROWS, 1]
    assert len({chart.id for chart in found}) == 2
    assert "1 of 101 layer," in found[1].caption


# -- signs for a terminal -----------------------------------------------------------------------------------------------


def test_the_same_as_signs():
    strips = timeline_of(record_of(SIMPLE, [0, 1, 2, 1500]))
    rows = list(strips.rows())
    assert [(row.layer, row.theory, row.letters) for row in rows] == [
        ("net.0.conv", "information", "FFCC"),
        ("net.0.conv", "reconstruction", "\\\\//"),
        ("net.0.conv", "spectrum", "NNll"),
        ("net.1.conv", "information", "FFCC"),
        ("net.1.conv", "reconstruction", "----"),
        ("net.1.conv", "spectrum", NOTHING * 4),
    ]
    assert rows[0].phases == (("fitting", 0), ("compression", 2))
    assert rows[0].says == "turns at 2 (1 to 4); what it rests on"
    assert rows[4].says == "no second phase found: why there is none"
    assert rows[5].says == "says nothing: why it is silent"
    assert rows[5].phases == (("", 0),)
    assert dict(strips.legend())["reconstruction"] == (("-", "flat"), ("\\", "falling"), ("/", "rising"))


def test_little_room_keeps_the_first_and_the_last_step():
    codes = np.zeros((50, 1, 3))
    codes[-1, :, 0] = 1
    strips = timeline_of(record_of(codes, range(50)))
    assert strips.shown(10)[0] == 0
    assert strips.shown(10)[-1] == 49
    row = next(strips.rows(10))
    assert len(row.letters) == 10
    assert row.letters[-1] == "C"
    assert len(next(strips.rows(1)).letters) == 1


def test_a_record_without_signs_shows_first_letters():
    record = record_of(SIMPLE, [0, 1, 2, 3])
    variable = record["timeline"].variable("phase")
    writer = RecordWriter.create(None)
    bare = {key: text for key, text in variable.attrs.items() if key not in ("letters", "told_by")}
    coords = {"layer": ["a", "b"], "theory": THEORIES}
    for number in range(4):
        writer.commit(number, [Entry("timeline", "phase", quantity(np.asarray(SIMPLE)[number], dims=("layer", "theory"), coords=coords, **bare))])  # fmt: skip
    bare_record = Record.from_writer(writer)
    strips = timeline_of(bare_record)
    assert strips.letters[:2] == ("f", "c")
    assert list(strips.rows()) == []  # nobody says that a theory looked
    assert to_svg(chart_of(bare_record)).startswith("<svg")


# -- colours ------------------------------------------------------------------------------------------------------------

VISION = {
    "usual": np.eye(3),
    "no red": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "no green": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]),
    "no blue": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]),
}  # fmt: skip
"""Machado, Oliveira and Fernandes, doi:10.1109/TVCG.2009.113, on linear sRGB."""


def seen(colour, vision):
    """A colour as somebody sees it, in OKLab (Ottosson 2020)."""
    linear = np.array([colours._to_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5)])
    red, green, blue = np.clip(VISION[vision] @ linear, 0, 1)
    long = np.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue)
    middle = np.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue)
    short = np.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue)
    return np.array([
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    ])  # fmt: skip


@pytest.mark.parametrize("vision", list(VISION))
@pytest.mark.parametrize("dark", [False, True])
def test_everybody_tells_order_and_neighbours_apart(vision, dark):
    """Phases of one theory by lightness, early ones nearest to the ground; theories that touch by hue."""
    families = [
        [colours.shade(family, n, count, dark=dark) for n in range(count)] for family, count in enumerate((2, 2, 7, 2))
    ]
    for family in families:
        lightness = [seen(colour, vision)[0] for colour in family]
        assert all((b - a if dark else a - b) > 0.04 for a, b in pairwise(lightness))
    for one, other in [*pairwise(families), (families[-1], families[0])]:
        for end in (0, -1):
            assert np.linalg.norm(seen(one[end], vision) - seen(other[end], vision)) > 0.02


def test_signs_read_on_every_shade():
    for dark in (False, True):
        for family in range(6):
            for number in range(7):
                colour = colours.shade(family, number, 7, dark=dark)
                assert colours.contrast(colours.on(colour), colour) >= 4.5
