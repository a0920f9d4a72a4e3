"""One line for each tensor, from a record's numbers alone."""

import io
import re

import numpy as np
import pytest
import torch
from rich.console import Console

from stratoscope import examine, inspect
from stratoscope.numerics.spectral_phase import PHASES
from stratoscope.report.html import to_html
from stratoscope.report.meaning import VERDICTS, Meaning, meaning, meaning_of
from stratoscope.report.rows import rows_of
from stratoscope.report.table import table_of
from stratoscope.report.terminal import print_report
from stratoscope.report.verdicts import LETTERS, STYLES

NUMBERS = {
    "num_spikes": 12.0, "alpha": 3.1, "alpha_low": 2.7, "alpha_high": 3.5, "fit_p": 0.5, "mp_softrank": 0.4, "M": 128.0,
    "N": 256.0, "bulk_share": 0.3, "spike_share": 0.1, "zero_mass": 0.0, "stable_rank": 9.0, "num_traps": 0.0,
    "entry_std": 1.0, "zero_share": 0.0,
}  # fmt: skip


def of(phase, **more):
    return meaning({**NUMBERS, "phase": phase, **more})


@pytest.mark.parametrize(
    ("phase", "more", "verdict", "says"),
    [
        ("bulk+spikes", {}, "trained", "bulk+spikes: 12 directions stand above noise; tail alpha 3.1 [2.7, 3.5]"),
        ("bulk+spikes", {"num_spikes": 1.0}, "trained", "1 direction stands above noise"),
        ("bulk-decay", {}, "trained", "bulk-decay: 12 directions stand above noise (10% of the others)"),
        ("heavy-tailed-fat", {}, "trained", "heavy-tailed (fat): noise holds 30% of the variance; tail alpha 3.1"),
        ("heavy-tailed-very-heavy", {"alpha": 1.5}, "over-trained?", "; look at the loss"),
        ("bulk+spikes", {"alpha": 1.9}, "over-trained?", "tail alpha 1.9"),
        ("too-small", {"alpha": 1.9}, "trained", "tail alpha 1.9"),
        ("too-small", {"alpha": 1.6, "alpha_high": 1.9}, "over-trained?", "very heavy; look at the loss"),
        ("no-test", {"alpha": 1.6, "alpha_high": 1.9}, "undecided", "tail alpha 1.6"),
        ("bulk+spikes", {"alpha": 7.2, "alpha_low": 6.3, "mp_softrank": 0.7}, "under-trained?", "a thin one"),
        ("bulk+spikes", {"alpha": 7.2, "alpha_low": 6.3, "alpha_high": 888.0}, "trained", "alpha 7.2 [6.3, >100]"),
        ("bulk+spikes", {"alpha": 7.2, "alpha_low": float("nan"), "mp_softrank": 0.7}, "under-trained?", "a thin one"),
        ("bulk+spikes", {"alpha": 7.2, "alpha_low": 3.7}, "trained", "alpha 7.2 [3.7"),
        ("bulk+spikes", {"fit_p": 0.01}, "trained", "(no power law, p 0.01)"),
        ("bulk+spikes", {"num_traps": 2.0, "num_spikes": 3.0}, "suspect", "2 correlation traps: huge entries, or a"),
        ("bulk+spikes", {"num_traps": 2.0}, "trained", "12 directions"),
        ("random-like", {"num_traps": 1.0, "num_spikes": 0.0}, "untrained", "indistinguishable from noise"),
        ("bleeding-out", {"mp_softrank": 0.9}, "under-trained?", "just above noise (soft rank 0.90)"),
        ("random-like", {}, "untrained", "indistinguishable from noise at 1%"),
        ("flat", {}, "untrained", "an orthogonal start"),
        ("rank-collapse", {"zero_mass": 0.38, "nonzero_phase": "random-like"}, "collapsed",
         "rank-collapse: 38% of its directions are zero; the others are random-like; weight decay too strong, or pruned?"),
        ("too-small", {"M": 84.0, "num_spikes": 3.0}, "trained", "3 directions stand above noise; 84 rows, too few"),
        ("too-small", {"M": 84.0, "num_spikes": 0.0, "bulk_distance": 0.05}, "untrained", "nothing stands above noise"),
        ("too-small", {"M": 84.0, "num_spikes": 0.0, "bulk_distance": 0.15}, "undecided", "nothing stands above noise"),
        ("too-small", {"zero_mass": 0.5}, "undecided", "50% of its directions are zero"),
        ("no-test", {}, "undecided", "noise of this kind has no known law; stable rank 9.0 of 128"),
        ("no-test", {"full_rank": 12.0}, "undecided", "stable rank 9.0 of 12"),
        ("too-small", {"M": 9.0, "num_spikes": float("nan"), "num_evals": 81.0}, "undecided", "stable rank 9.0 of 81"),
        ("too-small", {"M": 48.0, "num_spikes": float("nan"), "full_rank": 16.0}, "undecided", "stable rank 9.0 of 16"),
        ("something new", {}, "undecided", "something new"),
        ("random-like", {"entry_std": 0.0, "zero_share": 1.0}, "collapsed", "all zero"),
        ("random-like", {"entry_std": 0.0}, "collapsed", "one and the same number"),
    ],
)  # fmt: skip
def test_each_phase_has_a_verdict_and_its_numbers(phase, more, verdict, says):
    found = of(phase, **more)
    assert found.verdict == verdict
    assert says in found.says


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_has_a_line_a_letter_and_no_number_of_its_own(phase):
    found = of(phase)
    assert found.verdict in VERDICTS
    assert phase in LETTERS
    assert len(found.says) < 150
    # with nothing but the phase, nothing is made up
    bare = meaning({"phase": phase})
    assert bare.verdict in VERDICTS
    assert "None" not in bare.says


def test_limits_are_those_of_the_record():
    assert of("bulk+spikes", alpha=4.5).verdict == "trained"
    thin = {**NUMBERS, "phase": "bulk+spikes", "alpha": 4.5, "alpha_low": 4.1, "mp_softrank": 0.7}
    assert meaning(thin, {"high_alpha": 4.0}).verdict == "under-trained?"
    assert "at 5%" in meaning({"phase": "random-like"}, {"tw_level": 0.95}).says
    assert "at 0.10%" in meaning({"phase": "random-like"}, {"tw_level": 0.999}).says


def test_alpha_below_two_never_says_stop():
    assert "stop" not in of("heavy-tailed-very-heavy", alpha=1.2).says
    assert "look at the loss" in of("heavy-tailed-very-heavy", alpha=1.2).says


def test_worse_verdicts_come_first():
    order = [
        Meaning("trained", ""),
        of("random-like"),
        of("rank-collapse", zero_mass=0.9),
        of("rank-collapse", zero_mass=0.1),
        Meaning("broken", ""),
        of("bleeding-out"),
        of("heavy-tailed-very-heavy", alpha=1.5),
        Meaning("not applicable", ""),
    ]
    found = [one.verdict for one in sorted(order, key=lambda one: one.rank)]
    assert found == ["broken", "collapsed", "collapsed", "over-trained?", "untrained", "under-trained?", "trained",
                     "not applicable"]  # fmt: skip
    assert of("rank-collapse", zero_mass=0.9).rank < of("rank-collapse", zero_mass=0.1).rank
    assert set(STYLES) <= set(VERDICTS)


# -- of real records -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record():
    """A network with one layer of each kind."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    weights = {
        "noise.weight": noise(128, 256),
        "noise.bias": torch.zeros(128),
        "spikes.weight": noise(128, 256) + 0.3 * noise(128, 3) @ noise(3, 256),
        "collapsed.weight": noise(160, 60) @ noise(60, 160),
        "broken.weight": torch.full((128, 256), float("nan")),
        "norm.running_mean": torch.zeros(4),
        "small.weight": noise(10, 20),
        "zero.weight": torch.zeros(128, 256),
    }
    return inspect(weights, only=["weights", "spectrum"], skip=())


def test_the_verdicts_of_a_network_are_those_that_were_planted(record):
    rows = {row["name"]: row for row in rows_of(record)}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "noise.weight": "untrained",
        "noise.bias": "not judged",
        "spikes.weight": "trained",
        "collapsed.weight": "collapsed",
        "broken.weight": "broken",
        "norm.running_mean": "not applicable",
        "small.weight": "undecided",
        "zero.weight": "collapsed",
    }
    assert rows["broken.weight"]["meaning"] == "32,768 entries are NaN or infinite"
    assert "62% of its directions are zero" in rows["collapsed.weight"]["meaning"]
    assert "3 directions stand above noise" in rows["spikes.weight"]["meaning"]
    assert rows["noise.bias"]["meaning"] == "a bias, which has no spectrum"
    assert rows["norm.running_mean"]["meaning"] == "a running statistic, not a trained weight"
    assert all(isinstance(row["verdict"], str) and isinstance(row["meaning"], str) for row in rows.values())


def test_the_verdict_does_not_depend_on_the_scale():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(128, 200, generator=generator)
    weight += 2 * torch.randn(128, 1, generator=generator) @ torch.randn(1, 200, generator=generator)
    lines = set()
    for scale in (1e-6, 1.0, 1e6):
        (row,) = rows_of(inspect({"fc.weight": scale * weight}, only="spectrum"))
        lines.add((row["verdict"], row["meaning"]))
    assert len(lines) == 1


def test_what_has_no_spectrum_says_what_it_is():
    weights = {"a.scale": torch.ones(()), "a.one": torch.ones(1), "a.some": torch.randn(5), "a.bias": torch.randn(5)}
    found = {row["name"]: row["meaning"] for row in rows_of(inspect(weights))}
    assert found["a.scale"] == found["a.one"] == "a single number, which has no spectrum"
    assert found["a.some"] == "a vector, which has no spectrum"
    assert found["a.bias"] == "a bias, which has no spectrum"


def test_parts_of_a_normed_weight_are_no_matrices_of_their_own():
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(40, 50))
    found = {row["tensor"]: row["meaning"] for row in rows_of(inspect(layer.state_dict()))}
    assert found["parametrizations.weight.original1"] == "a part of the layer's weight, which is judged as a whole"


def said(record, width=80, **options):
    file = io.StringIO()
    print_report(record, Console(file=file, width=width, highlight=False), **options)
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_terminal_shows_the_worst_first_and_fits(record, width):
    text = said(record, width)
    table = text[text.index("6 weight matrices: ") :]
    names = ["broken.weight", "zero.weight", "collapsed.weight", "noise.weight", "small.weight", "spikes.weight"]
    places = [table.index(name) for name in names]
    assert places == sorted(places)
    assert "noise.bias" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "1 not applicable: a running statistic" in " ".join(text.split())


def test_all_rows_are_shown_when_asked_for(record):
    text = said(record, 100, every=True)
    assert "noise.bias" in text
    assert "norm.running_mean" in text
    assert "not applicable" in text


def test_the_page_has_the_verdicts_too(record):
    page = to_html(record)
    assert page.index(">broken<") < page.index(">untrained<") < page.index(">trained<")
    assert "32,768 entries are NaN or infinite" in page


def test_the_page_says_why_a_number_is_missing(record):
    page = to_html(record)
    assert re.search('title="cannot be told from noise"> *\N{EN DASH}</td>', page)
    assert re.search('title="too few rows"> *\N{EN DASH}</td>', page)


def test_a_record_without_spectra_has_no_table_of_verdicts():
    record = inspect({"fc.weight": torch.randn(8, 8)}, only="weights")
    assert "how one can tell" not in said(record)
    assert "how one can tell" not in to_html(record)
    (row,) = rows_of(record)
    assert (row["verdict"], row["meaning"]) == ("not judged", "its spectrum was not measured")


def test_many_rows_are_cut_with_a_count_of_each_verdict():
    generator = torch.Generator().manual_seed(0)
    weights = {f"noise{n}.weight": torch.randn(100, 100, generator=generator) for n in range(40)}
    weights |= {f"eye{n}.weight": float(n + 1) * torch.eye(100) + 0.001 for n in range(3)}
    from stratoscope.instruments.spectrum import EigenvalueSpectrum

    record = inspect(weights, instruments=[EigenvalueSpectrum(shuffles=0, bootstrap=0, alternatives=False)])
    text = said(record)
    assert "43 weight matrices: " in text
    # the same words are printed five times at most, and no row is lost
    assert text.count("indistinguishable") == 5
    (more,) = re.findall(r"\.\.\. and (.*): --all shows them", " ".join(text.split()))
    rows = len(re.findall(r"^ (?:noise|eye)\d+\.weight ", text, flags=re.MULTILINE))
    assert rows + sum(map(int, re.findall(r"(\d+) (?:trained|under-trained\?|untrained)", more))) == 43
    assert said(record, every=True).count("indistinguishable") > 30


def test_a_series_is_shown_over_its_steps(tmp_path):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(128, 200, generator=generator)
    spike = torch.randn(128, 1, generator=generator) @ torch.randn(1, 200, generator=generator)
    for step in range(4):
        torch.save({"fc.weight": noise + 0.1 * step * spike}, tmp_path / f"step_{step}.pt")
    text = said(inspect(tmp_path, only="spectrum"), 120)
    (letters,) = re.findall(r"fc\.weight +([RBS]{4}) ", text)
    assert (letters[0], letters[-1]) == ("R", "S")
    assert "R random-like" in text
    assert "S bulk+spikes" in text


def test_the_terminal_shows_a_dash_where_there_is_no_exponent(tmp_path):
    generator = torch.Generator().manual_seed(3)
    layers = torch.nn.Sequential(torch.nn.Linear(40, 60), torch.nn.ReLU(), torch.nn.Linear(60, 4))
    record = examine(layers, torch.randn(64, 40, generator=generator), only=["spectrum", "units"])
    text = said(record, 120)
    assert "NaN" not in text[: text.index("  dead share")]
    assert "\N{EN DASH}" in text


def test_the_meaning_of_a_row_is_what_the_table_says(record):
    table = table_of(record)
    rows = {row.name: row for row in table.rows}
    assert meaning_of(table, rows["spikes.weight"]).verdict == "trained"
    assert np.isfinite(meaning_of(table, rows["noise.weight"]).urgency)
