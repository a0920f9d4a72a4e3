"""The phase timeline in the terminal, and what measuring took."""

import io

import numpy as np
import pytest
from rich.console import Console

from stratoscope.charts.strips import timeline_of
from stratoscope.record import Entry
from stratoscope.record.quantity import quantity
from stratoscope.report.html import to_html
from stratoscope.report.spent import Spent, spent_of
from stratoscope.report.terminal import print_report
from stratoscope.report.timeline import print_timeline
from stratoscope.report.turns import disagreements

LETTERS = {
    "fitting": "F", "compression": "C", "flat": "-", "falling": "\\", "rising": "/", "random-like": "R", "bulk+spikes": "s",
    "heavy-tailed": "H", "drift": "D", "diffusion": "~",
}  # fmt: skip
PHASES = [*LETTERS]
THEORIES = ["information", "reconstruction", "spectrum", "gradient"]
STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
SECOND = {
    "information": ("fitting", "compression"),
    "reconstruction": ("falling", "rising"),
    "spectrum": ("random-like", "bulk+spikes"),
    "gradient": ("drift", "diffusion"),
}


def record_with(synthetic, turns, *, layers=None, steps=STEPS, unsaid=(), meta=None):
    """A record whose theory t turns at layer l at step turns[l][t]; NaN where it does not."""
    turns = np.asarray(turns, float)
    names = layers or [f"net.{n}" for n in range(len(turns))]
    coords = {"layer": names, "theory": THEORIES}

    def laid_out(name, values, **attrs):
        where = {"dims": ("layer", "theory"), "coords": coords, "units": "1", "long_name": name}
        return Entry("timeline", name, quantity(values, **where, **attrs))

    rounds = []
    for step in steps:
        phase = np.array(
            [[PHASES.index(SECOND[t][int(step >= turns[row, at])]) for at, t in enumerate(THEORIES)] for row in range(len(names))],
            float,
        )  # fmt: skip
        for row, at in unsaid:
            phase[row, at] = np.nan
        flags = {
            "flag_values": list(range(len(PHASES))),
            "flag_meanings": PHASES,
            "letters": [*LETTERS.values()],
            "chart": "timeline",
        }
        rounds.append((step, [laid_out("phase", phase, **flags)]))
    rounds[-1][1].extend(
        laid_out(name, turns * factor) for name, factor in (("turn", 1.0), ("turn_low", 0.75), ("turn_high", 1.5))
    )
    parts = [synthetic.linear(name, depth, 4, 4) for depth, name in enumerate(names)]
    return synthetic.record_of(rounds, layers=parts, meta={"status": "finished", **(meta or {})})


def shown(timeline, width=80, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    print_timeline(timeline, Console(file=file, width=width, highlight=False))
    file.flush()
    return raw.getvalue().decode(encoding)


NAN = float("nan")


def test_each_step_has_its_sign_under_its_theory(synthetic):
    text = shown(timeline_of(record_with(synthetic, [[16, 64, 4, NAN], [128, NAN, 8, 32]])), 120)
    head, first, turned, second, _ = text.splitlines()[1:6]
    assert head.split() == THEORIES
    assert first.split() == ["net.0", "FFFFFCCCCCCC", "\\\\\\\\\\\\\\/////", "RRRsssssssss", "DDDDDDDDDDDD"]
    assert second.split() == ["net.1", "FFFFFFFFCCCC", "\\" * 12, "RRRRssssssss", "DDDDDD~~~~~~"]
    assert turned.split() == ["16", "[12-24]", "64", "[48-96]", "4", "[3-6]"]
    for theory in THEORIES:
        assert head.index(theory) == first.index(first.split()[THEORIES.index(theory) + 1])
    for name in ("F fitting", "C compression", "/ rising", "R random-like", "s bulk+spikes", "~ diffusion"):
        assert name in text
    assert "heavy-tailed" not in text


@pytest.mark.parametrize("width", [24, 40, 60, 80, 200])
@pytest.mark.parametrize("steps", [3, 12, 400])
def test_it_fits_any_width(synthetic, width, steps):
    timeline = timeline_of(record_with(synthetic, [[16, 640, 4, 50_000]] * 3, steps=range(0, steps * 1000, 1000)))
    text = shown(timeline, width)
    assert max(map(len, text.splitlines())) <= width
    assert all(f"{phase}" in " ".join(text.split()) for phase in ("fitting", "bulk+spikes"))
    assert text.count("net.0") >= 1


def test_many_steps_share_columns_and_that_is_said(synthetic):
    text = shown(timeline_of(record_with(synthetic, [[500, NAN, NAN, NAN]], steps=range(1000))), 80)
    assert "1,000 steps from 0 to 999" in text
    assert "of them have a sign here" in " ".join(text.split())
    strip = next(line for line in text.splitlines() if line.startswith("net.0")).split()[1]
    assert 12 <= len(strip) <= 20
    assert strip == "F" * strip.count("F") + "C" * strip.count("C")
    assert abs(strip.count("F") - strip.count("C")) <= 2


def test_a_theory_or_layer_of_which_nothing_is_known_is_left_out(synthetic):
    unsaid = [(row, 3) for row in range(3)] + [(1, at) for at in range(4)] + [(0, 0)]
    timeline = timeline_of(record_with(synthetic, [[16, 64, 4, NAN]] * 3, unsaid=unsaid))
    assert timeline.theories == tuple(THEORIES[:3])
    assert timeline.layers == ("net.0", "net.2")
    text = shown(timeline)
    assert "gradient" not in text
    assert "." * len(STEPS) in text
    assert "nothing is said" in text
    everything = [(row, at) for row in range(3) for at in range(4)]
    assert timeline_of(record_with(synthetic, [[16, 64, 4, NAN]] * 3, unsaid=everything)) is None


def test_theories_disagree_where_their_intervals_have_no_step_in_common(synthetic):
    timeline = timeline_of(record_with(synthetic, [[16, 256, 20, NAN], [64, 70, 80, NAN]]))
    assert disagreements(timeline) == {("information", "reconstruction"): [0], ("reconstruction", "spectrum"): [0]}
    text = " ".join(shown(timeline, 120).split())
    assert "information and reconstruction turn at different steps: net.0 (16 and 256)" in text
    assert "information and spectrum" not in text


def test_of_many_layers_those_that_tell_most_are_shown(synthetic):
    turns = [[NAN, NAN, NAN, NAN]] * 60
    turns[41], turns[7] = [16, 900, NAN, NAN], [16, NAN, NAN, NAN]
    text = shown(timeline_of(record_with(synthetic, turns)))
    rows = [line.split()[0] for line in text.splitlines() if line.startswith("net.")]
    assert len(rows) == 20
    assert {"net.41", "net.7"} <= set(rows)
    assert rows == sorted(rows, key=lambda name: int(name[4:]))
    assert "... and 40 more layers" in text


def test_an_old_encoding_gets_plain_signs(synthetic):
    record = record_with(synthetic, [[16, 64, 4, NAN]], unsaid=[(0, 3), (0, 2)])
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    print_report(record, Console(file=file, width=80, highlight=False))
    file.flush()
    assert "FFFFFCCCCCCC" in raw.getvalue().decode("ascii")


def test_names_are_text_and_not_markup(synthetic):
    phase = [
        (step, [Entry("timeline", "phase", quantity([[float(step)]], units="1", long_name="phase", dims=("layer", "theory"),
                coords={"layer": ["[b]a\x1b[2J"], "theory": ["[i]mine"]}, flag_values=[0, 1, 2],
                flag_meanings=["[red]x", "\x1by", "z"]))])
        for step in range(3)
    ]  # fmt: skip
    text = shown(timeline_of(synthetic.record_of(phase)))
    assert "[b]a" in text
    assert "[i]mine" in text
    assert "[red]x" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("wrong", ["nothing", "dims", "turned", "plain"])
def test_a_record_without_a_timeline_has_none(synthetic, wrong):
    entries = {
        "nothing": [],
        "dims": [Entry("timeline", "phase", quantity([0.0], units="1", long_name="p", dims="layer", coords={"layer": ["a"]},
                       flag_values=[0], flag_meanings=["fitting"]))],
        "turned": [Entry("timeline", "phase", quantity([[0.0]], units="1", long_name="p", dims=("theory", "layer"),
                         coords={"theory": ["t"], "layer": ["a"]}, flag_values=[0], flag_meanings=["fitting"]))],
        "plain": [Entry("timeline", "phase", quantity([[0.0]], units="1", long_name="p", dims=("layer", "theory")))],
    }  # fmt: skip
    assert timeline_of(synthetic.record_of(*entries[wrong])) is None


def test_the_report_shows_the_timeline_after_the_findings_and_what_measuring_took(synthetic):
    meta = {"seconds_spent": 3.21, "share_spent": 0.0412, "budget": 0.05,
            "seconds_by_instrument": {"information": 0.8, "units": 0.0, "spectrum": 1.1}}  # fmt: skip
    record = record_with(synthetic, [[16, 64, 4, NAN]], meta=meta)
    raw = io.StringIO()
    print_report(record, Console(file=raw, width=120, highlight=False))
    text = raw.getvalue()
    sentence = (
        "Measuring took 3.2 s, 4.1% of the training time (budget 5%); most of it spectrum 1.1 s, information 0.8 s."
    )
    assert text.index("Nothing was judged") < text.index("Phases") < text.index(sentence) < text.index("Coverage")


@pytest.mark.parametrize(
    ("meta", "found"),
    [
        ({}, None),
        ({"seconds_spent": 1.0}, None),
        ({"seconds_spent": "much", "share_spent": 0.1}, None),
        ({"seconds_spent": float("nan"), "share_spent": 0.1}, None),
        ({"seconds_spent": 2.0, "share_spent": 0.1}, Spent(2.0, 0.1)),
        ({"seconds_spent": 2.0, "share_spent": 0.1, "seconds_aside": {"steps": 0.5, "beginning": 0.0}},
         Spent(2.0, 0.1, aside={"steps": 0.5})),
        ({"seconds_spent": 2.0, "share_spent": 0.1, "budget": 0.05, "seconds_by_instrument": {"a": 1, "b": 2, "c": "?"}},
         Spent(2.0, 0.1, 0.05, {"b": 2.0, "a": 1.0})),
    ],
)  # fmt: skip
def test_what_was_spent_is_read_from_the_record(synthetic, meta, found):
    assert spent_of(synthetic.record_of(meta=meta)) == found


# -- the page -------------------------------------------------------------------------------------------------------------


def test_the_page_shows_phases_before_the_layers_with_turns_and_their_intervals(synthetic):
    record = record_with(synthetic, [[16, 256, 20, NAN], [64, 70, 80, NAN]])
    text = to_html(record)
    body = text[text.index("<main") :]
    assert body.index('id="phases"') < body.index('id="layers"') if 'id="layers"' in body else True
    assert body.count("timeline-phase-timeline-c") == 2  # the picture and what describes it: once on the page
    assert '<td class="num" title="">256 <span class="small nowrap">192 to 384</span></td>' in text
    assert "information and reconstruction turn at different steps: net.0 (16 and 256)" in text
    assert 'href="#phases"' in text
    assert 'id="phases"' not in to_html(synthetic.record_of())


def test_the_page_says_what_measuring_took(synthetic):
    meta = {"seconds_spent": 3.21, "share_spent": 0.0412, "budget": 0.05, "seconds_by_instrument": {"units": 1.0}}
    text = to_html(record_with(synthetic, [[16, 256, 20, NAN]], meta=meta))
    assert "Measuring took 3.2 s, 4.1% of the training time (budget 5%)." in text
    assert "4.1%" in text
    assert "budget 5%" in text
    assert "<dt>measuring</dt>" in text
    assert "Measuring" not in to_html(record_with(synthetic, [[16, 256, 20, NAN]]))


def test_single_steps_are_named_where_they_take_most():
    spent = Spent(9.0, 0.05, None, {"units": 1.0, "probe": 2.0, "weights": 0.1}, {"steps": 5.0, "other": 0.2})
    assert spent.most == "single steps 5.0 s, probe 2.0 s, units 1.0 s"
