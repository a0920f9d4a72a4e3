import base64
import json
import re
import struct
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest

from stratoscope.charts import Axis, Cells, Chart, Line, charts_of, to_json, to_svg
from stratoscope.charts.frame import Ruler, frame_of
from stratoscope.charts.mpl import save, to_figure
from stratoscope.charts.png import palette_png
from stratoscope.errors import StratoscopeError
from stratoscope.record import Entry
from stratoscope.record.quantity import quantity

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '</text><script>alert(1)</script>" onload="x'


def line_chart(y, x=None, scale="linear", **kwargs):
    y = np.asarray(y, dtype=float)
    x = np.arange(len(y), dtype=float) if x is None else x
    axis = Axis("loss", kwargs.pop("units", "1"), scale)
    return Chart(
        "c",
        "lines",
        "Loss",
        "A loss.",
        "p",
        "loss",
        "1",
        "",
        Axis("step", ""),
        axis,
        (Line(0, x, y),),
        ("loss",),
        **kwargs,
    )


def paths(svg, css):
    return [node.get("d") for node in ET.fromstring(svg).iter(f"{SVG}path") if node.get("class") == css]


def points_of(d):
    found, x, y = [], 0.0, 0.0
    for command, a, b in re.findall(r"([Mlh])(-?[\d.]+)(?: (-?[\d.]+))?", d):
        if command == "M":
            x, y = float(a), float(b)
        elif command == "l":
            x, y = x + float(a), y + float(b)
        else:
            continue
        found.append((x, y))
    return found


@pytest.mark.parametrize("standalone", [True, False])
def test_every_chart_is_well_formed_and_names_itself(whole, standalone):
    for chart in charts_of(whole):
        root = ET.fromstring(to_svg(chart, standalone=standalone))
        space = SVG if standalone else ""
        assert root.get("role") == "img"
        title, desc = root.find(f"{space}title"), root.find(f"{space}desc")
        assert title.text == chart.title
        assert desc.text == chart.caption
        assert {title.get("id"), desc.get("id")} == {root.get("aria-labelledby"), root.get("aria-describedby")}
        numbers = [
            n for node in root.iter() for name in ("x", "y", "cx", "cy", "width", "height") if (n := node.get(name))
        ]
        assert all(np.isfinite(float(number)) for number in numbers)


def test_nothing_leaves_the_canvas(whole):
    for chart in charts_of(whole):
        root = ET.fromstring(to_svg(chart))
        _, _, width, height = (float(part) for part in root.get("viewBox").split())
        for node in root.iter(f"{SVG}text"):
            if node.get("x"):
                assert -1 <= float(node.get("x")) <= width + 1, (chart.id, node.text)
                assert -1 <= float(node.get("y")) <= height + 1, (chart.id, node.text)
        for node in root.iter(f"{SVG}circle"):
            assert 0 <= float(node.get("cx")) <= width


def test_names_from_a_file_cannot_become_markup(synthetic):
    names = [EVIL, "b\x00\x1b[31m", "c]]>&amp;"]
    attrs = {"units": EVIL, "long_name": EVIL, "dims": "layer", "coords": {"layer": names}}
    flags = {**attrs, "flag_values": [0, 1, 2], "flag_meanings": [EVIL, "x", "y"]}
    entries = [Entry("p", "x", quantity([1.0, 2.0, 3.0], **attrs)), Entry("p", "f", quantity([0, 1, 2], **flags))]
    rounds = [(step, [Entry("q", "y", quantity([1.0, 2.0, step * 3.0], **attrs)), *entries]) for step in range(4)]
    found = charts_of(synthetic.record_of(rounds))
    assert {chart.kind for chart in found} >= {"lines", "profile", "heatmap"}
    for chart in found:
        svg = to_svg(chart)
        root = ET.fromstring(svg)
        assert not list(root.iter(f"{SVG}script"))
        assert not any("onload" in node.attrib for node in root.iter())
        assert "<script" not in svg


def test_nan_is_a_gap_and_is_marked(synthetic):
    svg = to_svg(line_chart([1.0, 2.0, np.nan, np.inf, 3.0, 4.0]))
    (d,) = paths(svg, "ss-line")
    assert d.count("M") == 2
    (broken,) = paths(svg, "ss-broken")
    assert broken.count("M") == 2


def test_a_lone_point_between_gaps_is_still_seen():
    (d,) = paths(to_svg(line_chart([np.nan, 2.0, np.nan])), "ss-line")
    assert d.endswith("h0")


def test_points_lie_where_the_ruler_says():
    chart = line_chart([0.0, 5.0, 10.0])
    frame = frame_of(chart, top=34.0)
    found = points_of(paths(to_svg(chart), "ss-line")[0])
    assert [x for x, _ in found] == pytest.approx(frame.x(np.array([0.0, 1.0, 2.0])), abs=0.051)
    assert [y for _, y in found] == pytest.approx(frame.y(np.array([0.0, 5.0, 10.0])), abs=0.051)
    assert found[0][1] > found[2][1]


def test_a_log_axis_shows_zeros_as_such():
    svg = to_svg(line_chart([0.0, 1e-6, 1.0, -3.0], scale="log"))
    (under,) = paths(svg, "ss-under")
    assert under.count("M") == 2
    texts = [node.text for node in ET.fromstring(svg).iter(f"{SVG}text")]
    assert "log scale" in texts
    assert {"0.01", "1e-6"} <= set(texts)


def test_a_log_axis_without_a_positive_value_is_linear():
    assert not frame_of(line_chart([0.0, -1.0], scale="log")).y.log


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0], [np.nan], [1e300, -1e300], [1e-300, 2e-300], []])
def test_odd_curves_can_be_drawn(values):
    ET.fromstring(to_svg(line_chart(values)))
    ET.fromstring(to_svg(line_chart(values, scale="log")))


def test_long_curves_keep_their_spikes():
    y = np.zeros(20_000)
    y[12_345], y[777] = 1.0, -1.0
    svg = to_svg(line_chart(y))
    found = points_of(paths(svg, "ss-line")[0])
    frame = frame_of(line_chart(y), top=34.0)
    heights = [h for _, h in found]
    assert min(heights) == pytest.approx(float(frame.y(1.0)), abs=0.051)
    assert max(heights) == pytest.approx(float(frame.y(-1.0)), abs=0.051)
    assert len(found) <= 1500
    assert len(svg) < 40_000


def test_a_script_can_read_values_back_from_the_drawing():
    chart = line_chart([0.01, 0.1, 1.0], scale="log")
    svg = to_svg(chart)
    group = next(node for node in ET.fromstring(svg).iter() if node.get("class") == "ss-plot")
    bottom, top, low, high, log = (float(part) for part in group.get("data-y").split())
    read = [low * (high / low) ** ((bottom - y) / (bottom - top)) for _, y in points_of(paths(svg, "ss-line")[0])]
    assert log == 1
    assert read == pytest.approx([0.01, 0.1, 1.0], rel=0.01)


def test_series_are_told_apart_by_name_and_not_by_colour_alone(whole):
    chart = next(chart for chart in charts_of(whole) if chart.id == "performance-accuracy-steps")
    root = ET.fromstring(to_svg(chart))
    texts = ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
    assert {"train", "test"} <= set(texts)
    dashes = {node.get("style").partition("dasharray")[2] for node in root.iter() if node.get("data-name")}
    assert len(dashes) == 2


def test_large_maps_are_pictures_whose_pixels_are_the_cells():
    values = np.random.default_rng(0).random((40, 30))
    values[3, 4] = np.nan
    labels = tuple(f"layer{n}" for n in range(40))
    chart = Chart("m", "heatmap", "M", "A map.", "p", "x", "1", "", Axis("step", "", "category", tuple(map(str, range(30)))),
                  Axis("layer", "", "category", labels), (Cells(values),), colour=Axis("x"))  # fmt: skip
    svg = to_svg(chart)
    image = next(ET.fromstring(svg).iter(f"{SVG}image"))
    pixels = decode(base64.b64decode(image.get("href").partition(",")[2]))
    assert pixels.shape == (40, 30)
    assert pixels[3, 4] == 0
    order = np.argsort(values[0])
    assert (np.diff(pixels[0][order].astype(int)) >= 0).all()
    assert pixels.max() == 250
    assert (pixels == 0).sum() == 1


def test_small_maps_are_rectangles_that_say_their_value(whole):
    chart = next(chart for chart in charts_of(whole) if chart.kind == "grid")
    root = ET.fromstring(to_svg(chart))
    said = [node.find(f"{SVG}title").text for node in root.iter(f"{SVG}rect") if node.find(f"{SVG}title") is not None]
    assert len(said) == chart.marks[0].values.size
    assert said[0].startswith("body.0.relu, class 0: ")


def decode(data):
    """Pixels of a palette PNG without filters, read by hand."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    return np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)[:, 1:]


def test_the_png_is_one_that_pillow_reads_alike():
    image = pytest.importorskip("PIL.Image")
    import io

    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    palette = [f"#{n:02x}{2 * n:02x}00" for n in range(6)]
    read = np.asarray(image.open(io.BytesIO(palette_png(pixels, palette))).convert("RGBA"))
    assert read[1, 2].tolist() == [5, 10, 0, 255]
    assert read[0, 0, 3] == 0


@pytest.mark.parametrize("log", [False, True])
def test_a_ruler_maps_its_ends(log):
    ruler = Ruler(0.1, 10.0, 100.0, 300.0, log)
    assert ruler(np.array([0.1, 10.0])).tolist() == pytest.approx([100.0, 300.0])
    assert float(ruler(1.0)) == pytest.approx(200.0 if log else 100 + 200 * 0.9 / 9.9)


def test_json_is_strict_and_complete(whole):
    for chart in charts_of(whole):
        plain = json.loads(json.dumps(to_json(chart), allow_nan=False))
        assert plain["title"] == chart.title
        assert plain["x"]["title"] == chart.x.title
        assert [mark["mark"] for mark in plain["marks"]] == [type(mark).__name__.lower() for mark in chart.marks]


def test_json_turns_what_is_not_finite_into_null():
    (mark,) = to_json(line_chart([1.0, np.nan, -np.inf]))["marks"]
    assert mark["y"] == [1.0, None, None]


def test_matplotlib_draws_every_kind(whole, tmp_path):
    pytest.importorskip("matplotlib")
    kinds = {}
    for chart in charts_of(whole):
        kinds.setdefault(chart.kind, chart)
    for kind, chart in kinds.items():
        save(chart, tmp_path / f"{kind}.png", dpi=50)
        assert (tmp_path / f"{kind}.png").read_bytes()[:4] == b"\x89PNG"


def test_matplotlib_shows_the_same_numbers(whole):
    pytest.importorskip("matplotlib")
    chart = next(chart for chart in charts_of(whole) if chart.id == "performance-accuracy-steps")
    (axes,) = to_figure(chart).axes
    lines = [mark for mark in chart.marks if isinstance(mark, Line)]
    assert [line.get_ydata().tolist() for line in axes.lines] == [mark.y.tolist() for mark in lines]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "test"]


def test_without_matplotlib_one_sentence_says_how_to_get_it(monkeypatch):
    import stratoscope.errors as errors

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(errors, "import_module", missing)
    with pytest.raises(StratoscopeError, match=r"pip install 'stratoscope\[plots\]'"):
        to_figure(line_chart([1.0, 2.0]))
