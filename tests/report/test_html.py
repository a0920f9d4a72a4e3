import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from stratoscope.findings import Finding, Outcome
from stratoscope.record import Entry
from stratoscope.record.quantity import quantity
from stratoscope.report import html
from stratoscope.report.codes import MANUAL
from stratoscope.report.html import json_in_script, to_html, write_html

EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Elements of a page, and whether they are closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.wrong, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def text_of(self, tag):
        return [data for name, data in self.texts if name == tag]


@pytest.fixture(scope="module")
def page(whole):
    return Page(to_html(whole))


@pytest.fixture(scope="module")
def evil(synthetic):
    attrs = {"units": EVIL, "long_name": EVIL, "source": EVIL, "dims": "layer", "coords": {"layer": [EVIL, "b", "c"]}}
    entries = [
        Entry("p", EVIL, quantity([1.0, np.nan, np.inf], **attrs)),
        Entry("p", "flag", quantity([0, 1, 1], flag_values=[0, 1], flag_meanings=[EVIL, "x"], **attrs)),
        Entry(EVIL.replace(":", ""), "y", quantity(1.0, units=EVIL, long_name=EVIL)),
    ]
    found = [Finding(EVIL, EVIL, EVIL, 0, outcome, EVIL, EVIL, {EVIL: EVIL, "limit": float("nan")}, EVIL, EVIL)
             for outcome in Outcome]  # fmt: skip
    meta = {"name": EVIL, "argv": [EVIL], "versions": {EVIL: EVIL}, "data": {EVIL: {"how": EVIL, "notes": [EVIL]}},
            "instruments": {"p": {"title": EVIL, "source": EVIL, "method": f"{EVIL}\n\n* `{EVIL}`\n\n$ {EVIL} $ ${EVIL}$",
                                  "settings": {EVIL: EVIL}}}}  # fmt: skip
    layers = [synthetic.linear(EVIL, 0, 2, 2)]
    return to_html(synthetic.record_of(*entries, layers=layers, findings=found, meta=meta))


def test_the_page_is_well_formed(page):
    assert page.wrong == []
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))


def test_every_link_within_the_page_leads_somewhere(page):
    ids = {attrs["id"] for _, attrs in page.elements if attrs.get("id")}
    inside = [attrs["href"][1:] for attrs in page.all("a") if attrs["href"].startswith("#")]
    assert inside
    assert set(inside) <= ids
    for _, attrs in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(attrs.get(name, "").split()) <= ids


def test_the_page_loads_nothing_from_anywhere(whole, page):
    for tag, attrs in page.elements:
        for name in ("src", "href", "data", "srcset", "action", "poster", "xlink:href"):
            value = attrs.get(name) or ""
            if tag == "a" and name == "href":
                assert value.startswith(("#", "https://arxiv.org/abs/", "https://doi.org/", f"{MANUAL}/findings/"))
            else:
                assert not value or value.startswith("data:image/png;base64,")
    text = to_html(whole)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not page.all("link")
    assert not page.all("iframe")


def test_only_our_script_may_run(whole, page):
    import base64
    import hashlib

    scripts = [attrs for attrs in page.all("script")]
    assert [attrs.get("type") for attrs in scripts] == ["application/json", None]
    policy = next(
        attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    code = [data for tag, data in page.texts if tag == "script"][-1]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


def test_names_from_a_file_cannot_become_markup(evil):
    found = Page(evil)
    assert found.wrong == []
    assert len(found.all("script")) == 2
    assert not found.all("img")
    assert not any(name.startswith("on") for _, attrs in found.elements for name in attrs)
    assert "<script>alert" not in evil
    json.loads(next(data for tag, data in found.texts if tag == "script"))


def test_json_in_a_script_is_strict_and_cannot_end_it():
    value = {"a": [EVIL, "<!--", "]]>", "&amp;", "\u2028"], "b": None}
    text = str(json_in_script(value))
    assert "<" not in text
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        json_in_script(float("nan"))


def test_the_data_of_the_page_are_the_rows(whole, page):
    from stratoscope.report.rows import rows_of

    data = json.loads(page.text_of("script")[0])
    assert [row[0] for row in data["rows"]] == [row["name"] for row in rows_of(whole)]
    at = data["columns"].index("dead_share")
    assert data["rows"][2][at] == pytest.approx(rows_of(whole)[2]["dead_share"], rel=1e-4)


def test_findings_come_first_with_evidence_threshold_and_source(whole):
    text = to_html(whole)
    body = text[text.index("<main") :]
    assert body.index("UN001") < body.index("SP001") < body.index("2 checks passed") < body.index('id="layers"')
    card = body[body.index("UN001") : body.index("SP001")]
    assert "0.62" in card
    assert 'class="limit"><dt>limit</dt><dd>0.5</dd>' in card
    assert "https://arxiv.org/abs/1811.05381" in card
    assert "lower the learning rate" in card
    assert "<details" not in body[: body.index("UN001")]


def test_what_repeats_is_said_once_with_its_worst_and_a_link_to_the_manual(synthetic):
    found = [
        Finding("UN001", "units", f"body.{n}.relu", 200, Outcome.ISSUE, f"body.{n}.relu: {share:.0%} are dead", "act",
                {"dead_share": share, "limit": 0.5}, "arXiv:1811.05381", split)
        for n, share in ((0, 0.6), (1, 0.9), (2, 0.7)) for split in ("train", "test")
    ] + [Finding("ZZ001", "others", "a", 0, Outcome.TIP, "of another package", "act", {"x": 1.0, "limit": 0.5})]  # fmt: skip
    text = to_html(synthetic.record_of(layers=list(synthetic.catalogue(3).layers.values()), findings=found))
    assert text.startswith("<!doctype html>")
    shown = Page(text)
    articles = [attrs for attrs in shown.all("article")]
    assert len(articles) == 2
    assert shown.text_of("h3") == ["body.1.relu: 90% are dead", "of another package"]
    assert "the worst of 6: also body.0.relu, body.2.relu, on train and test" in text
    assert text.count(": 60% are dead") == 2
    links = [attrs["href"] for attrs in shown.all("a") if attrs["href"].startswith(MANUAL)]
    assert links == [f"{MANUAL}/findings/un001.html"]


def test_of_very_many_findings_some_are_listed(synthetic):
    found = [
        Finding("UN001", "units", f"relu.{n}", 0, Outcome.ISSUE, f"relu.{n} is dead", "act", {"x": n, "limit": 1}, "")
        for n in range(2000)
    ]
    text = to_html(synthetic.record_of(findings=found))
    assert text.count("<li>relu.") == 50
    assert "1,949 more" in text
    assert len(text) < 200_000


def test_every_number_in_a_table_has_a_column_that_says_unit_and_source(page):
    heads = [attrs for attrs in page.all("th") if attrs.get("scope") == "col" and "title" in attrs]
    assert heads
    assert all(re.search(r"\((arXiv|doi):|\.$", attrs["title"]) for attrs in heads)
    captions = [attrs["title"] for attrs in page.all("figcaption")]
    assert all("pure number" in title or " in " in title for title in captions)


def test_the_page_names_its_language_its_sections_and_its_pictures(page):
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("main")
    assert page.all("nav")
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    for attrs in page.all("svg"):
        assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-labelledby"])


def test_the_text_of_both_themes_has_enough_contrast():
    from stratoscope.charts.colours import contrast

    css = html._file("report.css")
    light = css[css.index(":root{") : css.index("}", css.index(":root{"))]
    dark = css[css.index(":root[data-theme=dark]{") :]
    for theme in (light, dark[: dark.index("}")]):
        colours = {name: full(value) for name, value in re.findall(r"--(\w+):(#[0-9a-f]{3,6})\b", theme)}
        for ground in ("bg", "card", "soft"):
            for ink in ("ink", "quiet", "link", "issue", "failed", "tip", "passed"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def full(colour):
    return colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])


def test_both_dark_themes_are_the_same():
    css = html._file("report.css")
    dark = re.findall(r"\{(color-scheme:dark;[^}]*)\}", css)
    assert len(dark) == 2
    assert dark[0] == dark[1]


def test_the_page_stays_small(synthetic):
    record = synthetic.make(steps=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256), every_step=1000)
    assert len(to_html(record).encode()) < 200_000


def test_all_charts_on_request(whole):
    from stratoscope.charts import charts_of

    pictures = [chart.id for chart in charts_of(whole) if chart.kind != "number"]
    ids = {attrs.get("id") for attrs in Page(to_html(whole, all_charts=True)).all("figure")}
    assert ids == set(pictures)
    fewer = {attrs.get("id") for attrs in Page(to_html(whole)).all("figure")}
    assert fewer < ids


@pytest.mark.parametrize("layers", [1, 300])
def test_one_layer_and_three_hundred(synthetic, layers):
    found = Page(to_html(synthetic.make(steps=(0, 1, 2), layers=layers, every_step=2)))
    assert found.wrong == []
    assert sum(attrs.get("id", "").startswith("row-") for attrs in found.all("tr")) == 3 * layers + 2


def test_an_empty_record_is_a_page(synthetic):
    found = Page(to_html(synthetic.record_of()))
    assert found.wrong == []
    assert any("Nothing was judged" in data for _, data in found.texts)


def test_a_running_record_is_a_page(synthetic):
    record = synthetic.record_of(Entry("p", "x", quantity(1.0, units="1", long_name="x")), meta={"name": "still going"})
    assert "still going" in to_html(record)


def test_writing_is_all_or_nothing(whole, synthetic, tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    assert write_html(whole, path) == path
    before = path.read_bytes()
    assert before.startswith(b"<!doctype html>")
    assert before.rstrip().endswith(b"</html>")

    def fail(*args, **kwargs):
        raise RuntimeError("no")

    monkeypatch.setattr(html, "to_html", fail)
    with pytest.raises(RuntimeError):
        write_html(whole, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_control_characters_do_not_stop_the_page(synthetic, tmp_path):
    found = [Finding("XX001", "p", "a\x00\x1b[2J", 0, Outcome.ISSUE, "odd \x07 name", "", {}, "")]
    assert "odd" in write_html(synthetic.record_of(findings=found), tmp_path / "x.html").read_text(encoding="utf-8")
