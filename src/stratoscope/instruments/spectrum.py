r"""Spectrum: the eigenvalues of every weight matrix, what of them is noise, and the phase of self-regularisation.

Without data, for each weight matrix seen with sides $M \le N$: the eigenvalues $\lambda_1 \ge \dots \ge \lambda_M$ of
$W W^T$ (not divided by $N$), in float64. They are split into noise, which follows the law of Marchenko and Pastur, and
what training added.

| quantity | definition | range |
|---|---|---|
| `phase`, `nonzero_phase` | by the rule below; the second leaves out eigenvalues that are zero | categories |
| `num_spikes`, `spike_share` | eigenvalues above `noise_edge`; over the number of the others | $0 \dots M$; $\ge 0$ |
| `spike_strength` | of each, $\theta$ in units of $\sqrt{N\sigma^2}$, seen from $(M/N)^{1/4}$ on | $> 0$ |
| `bulk_sigma`, `sigma_mp` | $\sqrt N\sigma$; the same where the mean eigenvalue is made 1 | $\ge 0$; $[0, 1]$ |
| `bulk_min`, `bulk_max` | $N\sigma^2 (1 \mp \sqrt{M/N})^2$, where noise begins and ends | $\ge 0$ |
| `noise_edge` | what the largest eigenvalue of noise stays under in 99 of 100 cases (`tw_level`) | $>$ `bulk_max` |
| `mp_softrank` | `bulk_max` $/ \lambda_1$ | about 1 for noise, $\to 0$ |
| `bulk_share`, `bulk_distance` | the noise's share of $\sum\lambda$; how far it is from its law (Kolmogorov) | $[0, 1]$ |
| `alpha` | exponent of a power law $\lambda^{-\alpha}$ fitted to the tail | $> 1$ |
| `alpha_low`, `alpha_high` | bootstrap interval of 95 %, `xmin` chosen anew each time | |
| `sigma` | standard error of `alpha` if `xmin` were known, $(\alpha - 1)/\sqrt n$: too small | $> 0$ |
| `xmin`, `xmax`, `num_pl_spikes` | where the tail begins and ends; eigenvalues in it | |
| `D`, `fit_p` | distance of the tail from the fit; share of true power laws that are as far | $[0, 1]$ |
| `versus_lognormal`, ... | the better law of the tail, and Vuong's normalised ratio in `lognormal_ratio`, ... | categories |
| `max_rand_eval`, `num_traps` | largest eigenvalue of the shuffled entries; spikes among those | |
| `rand_distance`, `ww_softrank` | distance (Jensen-Shannon) to the shuffled spectrum; `max_rand_eval` $/ \lambda_1$ | $\ge 0$ |
| `stable_rank`, `effective_rank`, `numerical_rank` | as in the instrument `weights` | $[0, M]$ |
| `matrix_rank`, `rank_loss` | singular values above $N \varepsilon s_1$, float64's $\varepsilon$; the others | $0 \dots M$ |
| `entropy` | $-\sum p \ln p / \ln$ `matrix_rank`, $p = \lambda / \sum\lambda$ | $[0, 1]$ |
| `zero_mass` | share of eigenvalues below $10^{-8} \lambda_1$, or within the rounding of the stored type | $[0, 1]$ |
| `lambda_max`, `sv_max`, `sv_min` | $\lambda_1$, $\sqrt{\lambda_1}$, $\sqrt{\lambda_M}$ | $\ge 0$ |
| `norm`, `log_norm`, `log_spectral_norm` | $\sum\lambda$, its decimal logarithm, and that of $\lambda_1$ | |
| `alpha_weighted`, `log_alpha_norm` | $\alpha \log_{10}\lambda_1$; $\log_{10}\sum\lambda^\alpha$ | |
| `N`, `M`, `Q`, `rf`, `num_evals` | sides, $N/M$, matrices that are pooled, eigenvalues | |
| `sketch_error` | of a matrix above `exact_up_to`, how far the distribution may be off; else 0 | $[0, 1]$ |
| `eigenvalue` | all of them; of more than 2,048 the largest half of that, then medians of groups | $\ge 0$ |

Names that weightwatcher has mean what they mean there. Where it has another meaning the name differs: its
`spectral_norm` is `lambda_max` here (`spectral_norm` of the instrument `weights` is $\sqrt{\lambda_1}$), and its `norm`
and `log_norm` are those of the squared Frobenius norm, as here. Its `sigma_mp`, `bulk_max`, `num_spikes` and
`mp_softrank` come from a fit to a smoothed density, ours from a closed form, so the values differ by some percent, and by
more for square matrices.

**The phases**, by the first that holds. More than 5 % zeros: `rank-collapse`. No spike: `random-like`, or `flat` where
the eigenvalues are closer together than noise has them. Noise holds less than half of the variance, or is further
than 0.10 from its law: `heavy-tailed-` `very-heavy` ($\alpha < 2$), `fat` ($< 4$) or `weak`. At least ten spikes, and
7 % of the others: `bulk-decay`. Soft rank of at least 0.75: `bleeding-out`. Else `bulk+spikes`. Below 100 rows:
`too-small`. Where noise has no known law (products of weights, operators): `no-test`. The papers draw these lines by eye;
each number is ours and a setting.

**What it means.** A matrix that cannot be told from noise shows no learning in its spectrum, and gets no `alpha`: on
Gaussian matrices of 64 x 64, three in four would otherwise have an `alpha` between 2 and 6, which reads as well trained.
Spikes are directions that stand out; there are often as many as classes. In the authors' experiments smaller batches
lead along the phases from random-like to heavy-tailed, and among well trained networks of one family a smaller `alpha`
goes with better accuracy, with 2 to 6 the usual range.

**When it misleads.** `alpha` compares similar networks at best; within one training it can rise while the network
improves. Below 2 it does not say "stop": a network that diverged looks the same. A `fit_p` below 0.1 says that the tail
is no power law; above it the tail may still be none, as short tails of most laws pass. The cuts were chosen on synthetic
matrices of 384 x 1024 and were right there for 67 of 70, which is no accuracy, as the cuts were seen to fit. One matrix
of noise in a hundred has a spike by construction. A common mean of the entries is a spike, and a trap; so are the few
eigenvalues by which very sparse or very uneven noise reaches beyond its edge. A direction weaker than $(M/N)^{1/4}$
cannot be seen by anybody, and a quarter above that it is seen in three draws of four at 256 x 512, and nearly always from
1024 on. In half precision, what rounding makes is not counted as rank.

**What to do.** Indistinguishable from noise: see whether the layer is trained at all, and whether weight decay is too
strong. Rank collapse: lower the weight decay. Correlation traps: look for single huge entries, lower the learning rate.
Under-trained: train longer, or with smaller batches. Very heavy: look at the loss.

Source: Martin and Mahoney, arXiv:1810.01075 and arXiv:1901.08276; power laws, Clauset, Shalizi and Newman,
arXiv:0706.1062; edges, Johnstone, doi:10.1214/aos/1009210544; spikes, arXiv:math/0403022 and arXiv:1103.2221.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stratoscope.capture.needs import Need
from stratoscope.capture.spectra import Spectra
from stratoscope.capture.weights import EXACT_UP_TO, Matrices
from stratoscope.findings import Evidence, Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.reading import At, last_of, passed_if_silent
from stratoscope.instruments.weights import MATRIX_NAMES
from stratoscope.numerics.spectral_numbers import ALTERNATIVES, Options, Reading, spectrum_numbers, thinned, whole
from stratoscope.numerics.spectral_phase import PHASES, TESTED, WHY, Cuts
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.views import LayerView
    from stratoscope.numerics.spectrum import Spectrum
    from stratoscope.record.group import Group

NOISE_NAMES = {
    "num_spikes": "eigenvalues above what noise reaches",
    "spike_share": "spikes over the other eigenvalues",
    "mp_softrank": "edge of the noise over the largest eigenvalue",
    "bulk_share": "share of the variance that is noise",
    "bulk_distance": "Kolmogorov distance of the bulk from Marchenko and Pastur's law",
    "bulk_sigma": "standard deviation of the noise times the root of the longer side",
    "sigma_mp": "standard deviation of the noise where the mean eigenvalue is one",
    "bulk_min": "where the noise begins",
    "bulk_max": "where the noise ends",
    "noise_edge": "what the largest eigenvalue of noise stays under",
}
TAIL_NAMES = {
    "alpha": "exponent of the eigenvalues' tail",
    "alpha_low": "lower end of the exponent's 95 % interval",
    "alpha_high": "upper end of the exponent's 95 % interval",
    "D": "Kolmogorov-Smirnov distance of the tail from its power law",
    "fit_p": "share of true power laws that are as far from their fit",
    "sigma": "standard error of the exponent for a known start",
    "xmin": "where the tail begins",
    "xmax": "where the tail ends",
    "num_pl_spikes": "eigenvalues in the tail",
    "alpha_weighted": "exponent times the logarithm of the largest eigenvalue",
    "log_alpha_norm": "logarithm of the sum of the eigenvalues to the power of the exponent",
    **{f"{law}_ratio": f"normalised likelihood ratio, power law over {law.replace('_', ' ')}" for law in ALTERNATIVES},
}
SIZE_NAMES = {
    **{name: MATRIX_NAMES[name] for name in ("stable_rank", "effective_rank", "numerical_rank", "sv_min")},
    "sv_max": MATRIX_NAMES["spectral_norm"],
    "matrix_rank": "singular values above the rounding of float64",
    "rank_loss": "singular values within the rounding of float64",
    "entropy": "entropy of the eigenvalues' shares over that of equal ones",
    "zero_mass": "share of eigenvalues that are zero",
    "lambda_max": "largest eigenvalue",
    "norm": "sum of the eigenvalues",
    "log_norm": "logarithm of the sum of the eigenvalues",
    "log_spectral_norm": "logarithm of the largest eigenvalue",
    "num_evals": "eigenvalues",
    "N": "longer side",
    "M": "shorter side",
    "Q": "longer over shorter side",
    "rf": "matrices whose eigenvalues are pooled",
    "sketch_error": "how far a sketched distribution of eigenvalues may be off; 0 where exact",
}
SHUFFLE_NAMES = {
    "max_rand_eval": "largest eigenvalue of the shuffled entries",
    "num_traps": "eigenvalues of the shuffled entries above what noise reaches",
    "rand_distance": "Jensen-Shannon distance from the shuffled spectrum",
    "ww_softrank": "largest eigenvalue of the shuffled entries over that of the matrix",
}
JUDGED = ("num_evals", "phase", "zero_mass", *NOISE_NAMES, *TAIL_NAMES, "num_traps", "M", "max_rand_eval", "lambda_max")

_HEADLINES = ("alpha", "num_spikes", "mp_softrank")
_PICTURED = {*_HEADLINES, "bulk_share", "fit_p", "num_traps", "entropy"}
_MOST_NAMES = 4


@dataclass(frozen=True)
class EigenvalueSpectrum(LayerInstrument):
    """Eigenvalues of every weight matrix, what of them is noise, the tail's exponent, and the phase of training.

    Attributes:
        view: how a convolution is seen: `"matrix"`, outputs by inputs x kernel; `"slices"`, one matrix for each place of
            the kernel, pooled; `"operator"`, the map on images, which has no test of noise.
        shuffles: how often the entries are shuffled to look for traps; each costs a decomposition. 0 leaves it out.
        bootstrap: samples for the fit's p-value, and for the interval of `alpha`; 0 leaves both out.
        alternatives: whether the tail is compared with other laws.
        seed: of shuffles and samples.
        xmax: upper limit of the power law; none by default, since a limit biases `alpha`.
        noise_gate: whether `alpha` is given only to a matrix that can be told from noise.
        keep: eigenvalues of a matrix that are recorded one by one.
        exact_up_to: shorter side of a matrix above which its spectrum is sketched.
        tw_level: probability with which the largest eigenvalue of noise stays under its edge.
        zero: share of the largest eigenvalue below which one counts as zero.
        zero_mass: share of zeros above which the rank has collapsed.
        bulk_share: share of the variance below which the noise is no bulk.
        bulk_distance: Kolmogorov distance above which the bulk does not follow its law.
        bulk_decay: spikes over the other eigenvalues from which the bulk decays.
        decay_spikes: spikes below which it does not, whatever their share.
        soft_rank: soft rank from which spikes are just bleeding out.
        fat: `alpha` below which a heavy tail is fat.
        very_heavy: `alpha` below which it is very heavy.
        min_rows: rows below which a matrix is too small for a phase.
        min_test_rows: rows below which noise is not tested for.
        min_values: eigenvalues other than zero below which no `alpha` is fitted.
        high_alpha: `alpha` above which a matrix may be under-trained.
        low_p: p-value below which a tail is not taken for a power law.
        thin_soft_rank: soft rank below which what was learned stands out, whatever `alpha` is.
        trap_share: traps over spikes from which the spikes may come from single entries or a common mean.
    """

    key: ClassVar[str] = "spectrum"
    title: ClassVar[str] = "Spectrum"
    source: ClassVar[str] = "arXiv:1810.01075"
    codes: ClassVar[Mapping[str, str]] = {
        "RM001": "weight matrices cannot be told from noise",
        "RM002": "the rank of a weight matrix has collapsed",
        "RM003": "eigenvalues of weight matrices beyond noise stay when the entries are shuffled",
        "RM004": "the tails of weight matrices are very heavy",
        "RM005": "weight matrices may be under-trained",
        "RM006": "the exponent of weight matrices rests on a tail that is no power law",
        "RM007": "weight matrices get no phase",
    }

    view: str = "matrix"
    shuffles: int = 1
    bootstrap: int = 200
    alternatives: bool = True
    seed: int = 0
    xmax: float | None = None
    noise_gate: bool = True
    keep: int = 2048
    exact_up_to: int = EXACT_UP_TO
    tw_level: float = Cuts.tw_level
    zero: float = Cuts.zero
    zero_mass: float = Cuts.zero_mass
    bulk_share: float = Cuts.bulk_share
    bulk_distance: float = Cuts.bulk_distance
    bulk_decay: float = Cuts.bulk_decay
    decay_spikes: int = Cuts.decay_spikes
    soft_rank: float = Cuts.soft_rank
    fat: float = Cuts.fat
    very_heavy: float = Cuts.very_heavy
    min_rows: int = Cuts.min_rows
    min_test_rows: int = Cuts.min_test_rows
    min_values: int = Cuts.min_values
    high_alpha: float = 6.0
    low_p: float = 0.1
    trap_share: float = 0.5
    thin_soft_rank: float = 0.5

    @property
    def requires(self) -> set[Need]:
        """The eigenvalues of the layer's matrices, and of their shuffles."""
        return {self._spectra}

    @property
    def uses(self) -> set[Need]:
        """The matrices, for the type that they are stored in."""
        return {Matrices()}

    @property
    def options(self) -> Options:
        """The settings as `spectrum_numbers` takes them."""
        cuts = Cuts(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Cuts)})
        return Options(cuts, self.noise_gate, self.xmax, self.bootstrap, self.seed, self.alternatives)

    @property
    def _spectra(self) -> Spectra:
        return Spectra(self.view, self.shuffles, self.seed, self.exact_up_to)

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """Measure every matrix of one layer."""
        spectra: dict[str, Spectrum] = view[self._spectra]
        stored, options = view[Matrices()].stored, self.options
        read = {name: spectrum_numbers(s, options, stored[name]) for name, s in spectra.items()}
        return columns(read) | eigenvalues(spectra, self.keep)

    # -- judgement -----------------------------------------------------------------------------------------------------

    def judge(self, measured: Group) -> Iterator[Finding]:
        """What the spectra say of each matrix at the last step; what many share is said once."""
        at = list(last_of(measured, *JUDGED, dim="matrix"))
        yield from passed_if_silent(self, self._judge(at), self._checked(at), measured)

    def _checked(self, matrices: list[At]) -> list[str]:
        """Codes for which there was a matrix to look at."""

        def any_has(name: str) -> bool:
            return any(not math.isnan(at[name]) for at in matrices)

        looked = {
            "RM001": any_has("num_spikes"),
            "RM002": any(at["M"] >= self.min_rows for at in matrices) and any_has("zero_mass"),
            "RM003": any_has("num_traps"),
            "RM004": bool(self._with_exponent(matrices)),
            "RM005": bool(self._with_exponent(matrices)),
            "RM006": any(not math.isnan(at["fit_p"]) for at in self._with_exponent(matrices)),
            "RM007": bool(matrices),
        }
        return [code for code, there in looked.items() if there]

    def _judge(self, matrices: list[At]) -> Iterator[Finding]:
        for at in matrices:
            yield from self._collapse(at)
        yield from self._noise(matrices)
        yield from self._traps(matrices)
        yield from self._heavy(matrices)
        yield from self._under_trained(matrices)
        yield from self._no_power_law(matrices)
        yield from self._no_phase(matrices)

    def _collapse(self, at: At) -> Iterator[Finding]:
        if _phase(at) == "rank-collapse":
            yield self.finding(
                "RM002", Outcome.ISSUE,
                f"{at.layer}: {at['zero_mass']:.0%} of the eigenvalues are zero, so the rank has collapsed",
                layer=at.layer, step=at.step,
                do="lower the weight decay or the learning rate, unless the matrix was pruned or factorised on purpose",
                zero_mass=at["zero_mass"], limit=self.zero_mass, zero=self.zero, min_rows=self.min_rows,
            )  # fmt: skip

    def _noise(self, matrices: list[At]) -> Iterator[Finding]:
        tested = [at for at in matrices if not math.isnan(at["num_spikes"])]
        noise = [at for at in tested if at["num_spikes"] == 0 and at["bulk_distance"] <= self.bulk_distance]
        if noise:
            yield self._gathered(
                "RM001", Outcome.TIP, noise, tested,
                "cannot be told from noise: untrained, or held there by regularisation",
                do="see whether these layers are trained at all, and whether weight decay is too strong for them",
                num_spikes=0, limit=0, tw_level=self.tw_level, bulk_distance=max(at["bulk_distance"] for at in noise),
                bulk_distance_limit=self.bulk_distance, min_test_rows=self.min_test_rows,
            )  # fmt: skip

    def _traps(self, matrices: list[At]) -> Iterator[Finding]:
        shuffled = [at for at in matrices if not math.isnan(at["num_traps"])]
        trapped = sorted((at for at in shuffled if self._is_trapped(at)), key=lambda at: -at["num_traps"])
        if trapped:
            yield self._gathered(
                "RM003", Outcome.TIP, trapped, shuffled,
                f"{_have(trapped)} eigenvalues beyond noise that stay when the entries are shuffled, so that single huge "
                "entries or a common mean make them",
                do="look for single huge entries (lower the learning rate, clip gradients) and for a common mean",
                num_traps=trapped[0]["num_traps"], num_spikes=trapped[0]["num_spikes"], limit=self.trap_share,
                tw_level=self.tw_level,
                max_rand_eval=trapped[0]["max_rand_eval"], noise_edge=trapped[0]["noise_edge"],
            )  # fmt: skip

    def _is_trapped(self, at: At) -> bool:
        """Whether shuffling leaves many of the spikes; one trap beside many spikes, or without any, says nothing."""
        return at["num_spikes"] > 0 and at["num_traps"] >= max(self.trap_share * at["num_spikes"], 1)

    def _heavy(self, matrices: list[At]) -> Iterator[Finding]:
        given = self._with_exponent(matrices) + [at for at in matrices if self._is_small_with_interval(at)]
        heavy = sorted((at for at in given if self._has_heavy_tail(at)), key=lambda at: at["alpha"])
        if heavy:
            yield self._gathered(
                "RM004", Outcome.TIP, heavy, given,
                f"{_have(heavy)} an alpha below {self.very_heavy:g}, a very heavy tail; that alone is no reason to stop, "
                "and a network that diverged looks the same",
                do="look at the loss on held-out data: if it got worse, go back and lower the learning rate; if it is "
                "good, nothing is wrong",
                alpha=heavy[0]["alpha"], limit=self.very_heavy, alpha_low=heavy[0]["alpha_low"],
                alpha_high=heavy[0]["alpha_high"], fit_p=heavy[0]["fit_p"],
            )  # fmt: skip

    def _is_small_with_interval(self, at: At) -> bool:
        return at["M"] < self.min_rows and at["num_spikes"] > 0 and not math.isnan(at["alpha_high"])

    def _has_heavy_tail(self, at: At) -> bool:
        """Whether `alpha` is low; of a small matrix, all of its interval."""
        return at["alpha" if at["M"] >= self.min_rows else "alpha_high"] < self.very_heavy

    def _under_trained(self, matrices: list[At]) -> Iterator[Finding]:
        given = self._with_exponent(matrices)
        under = [at for at in given if self._has_thin_tail(at) or _phase(at) == "bleeding-out"]
        under.sort(key=lambda at: -at["alpha"])
        if under:
            yield self._gathered(
                "RM005", Outcome.TIP, under, given,
                "may be under-trained: what was learned hardly stands out of the noise",
                do="train longer, with smaller batches or a larger learning rate, or use a narrower layer",
                alpha=under[0]["alpha"], limit=self.high_alpha, alpha_low=under[0]["alpha_low"],
                soft_rank=max(at["mp_softrank"] for at in under), soft_rank_limit=self.soft_rank,
            )  # fmt: skip

    def _has_thin_tail(self, at: At) -> bool:
        """Whether all of the interval of `alpha` is high, or `alpha` where there is none, and near the noise."""
        low = at["alpha"] if math.isnan(at["alpha_low"]) else at["alpha_low"]
        return low > self.high_alpha and not at["mp_softrank"] < self.thin_soft_rank

    def _no_power_law(self, matrices: list[At]) -> Iterator[Finding]:
        given = self._with_exponent(matrices)
        rejected = sorted((at for at in given if at["fit_p"] < self.low_p), key=lambda at: at["fit_p"])
        if rejected:
            yield self._gathered(
                "RM006", Outcome.TIP, rejected, given,
                f"{_have(rejected)} a tail that is no power law, so that alpha says little there",
                do="do not compare these exponents; read the phase, the spikes and the soft rank instead",
                fit_p=rejected[0]["fit_p"], limit=self.low_p, D=rejected[0]["D"], bootstrap=self.bootstrap,
            )  # fmt: skip

    def _no_phase(self, matrices: list[At]) -> Iterator[Finding]:
        small = [at for at in matrices if _phase(at) == "too-small"]
        without = small + [at for at in matrices if _phase(at) == "no-test"]
        if without:
            broken = [at for at in without[len(small) :] if math.isnan(at["lambda_max"])]
            lawless = len(without) - len(small) - len(broken)
            reasons = [
                f"{number} {reason}" if len(without) > 1 else reason
                for number, reason in (
                    (len(small), f"with fewer than {self.min_rows} rows"),
                    (lawless, "of a kind whose noise has no known law"),
                    (len(broken), "with entries that are not finite"),
                )
                if number
            ]
            yield self._gathered(
                "RM007", Outcome.SKIPPED, without, matrices, f"{_get(without)} no phase: {', '.join(reasons)}",
                too_small=len(small), limit=self.min_rows,
            )  # fmt: skip

    def _with_exponent(self, matrices: list[At]) -> list[At]:
        """Those that are large enough for a phase, too: of small ones the exponent is rough, and is recorded only."""
        return [at for at in matrices if not math.isnan(at["alpha"]) and at["M"] >= self.min_rows]

    def _gathered(
        self,
        code: str,
        outcome: Outcome,
        found: list[At],
        of: list[At],
        what: str,
        *,
        do: str = "",
        **evidence: Evidence,
    ) -> Finding:
        """One finding for all matrices of which the same is true; of the matrix itself where it is one."""
        names = [str(at.layer) for at in found]
        more = len(names) - _MOST_NAMES
        shown = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        one = len(names) == 1
        said = self.finding(
            code, outcome, f"{shown} {what}" if one else f"{len(names)} of {len(of)} weight matrices {what} ({shown})",
            layer=shown if one else None, step=max(at.step for at in found), do=do,
        )  # fmt: skip
        counted: dict[str, Evidence] = {"n_layers": len(names), "n_measured": len(of), "layers": shown}
        return dataclasses.replace(said, evidence=counted | evidence)


def _have(found: list[At]) -> str:
    return "has" if len(found) == 1 else "have"


def _get(found: list[At]) -> str:
    return "gets" if len(found) == 1 else "get"


def _phase(at: At) -> str:
    place = at["phase"]
    return PHASES[int(place)] if 0 <= place < len(PHASES) else ""


# -- what is recorded ----------------------------------------------------------------------------------------------------


def columns(read: Mapping[str, Reading]) -> dict[str, Quantity]:
    """Every number and category of a layer's matrices, along `matrix`."""
    found = {
        "phase": _category([r.verdict.phase for r in read.values()], PHASES, read, "phase of training", headline=0),
        **_numbers(read, TAIL_NAMES, why="alpha_why"),
        **_numbers(read, NOISE_NAMES, why="noise_why"),
        **_numbers(read, SIZE_NAMES),
        **_numbers(read, SHUFFLE_NAMES, why="noise_why"),
    }
    others = [r.verdict.nonzero_phase for r in read.values()]
    found["nonzero_phase"] = _category(
        others, PHASES, read, "phase without the eigenvalues that are zero", chart="none"
    )
    found["alpha_why"] = _category([r.verdict.why for r in read.values()], WHY, read, "why no exponent", chart="none")
    found["noise_why"] = _category(
        [r.verdict.tested for r in read.values()], TESTED, read, "why noise was not tested for", chart="none"
    )
    for law in ALTERNATIVES:
        laws = ("power_law", law, "undecided", "not_fitted")
        better = [{"other": law}.get(v := r.versus.get(law, "not_fitted"), v) for r in read.values()]
        found[f"versus_{law}"] = _category(better, laws, read, f"power law or {law.replace('_', ' ')}", chart="none")
    strong = {name: r.strengths for name, r in read.items() if len(r.strengths)}
    if strong:
        found["spike_strength"] = _ragged(strong, "strength of each direction beyond noise")
    return found


def eigenvalues(spectra: Mapping[str, Spectrum], keep: int) -> dict[str, Quantity]:
    """The spectra themselves, thinned where they are long; then `eigenvalue_count` says how many each stands for."""
    kept, counts = {}, {}
    for name, spectrum in spectra.items():
        kept[name], count = thinned(whole(spectrum), keep)
        if count is not None:
            counts[name] = count
    found = {}
    if any(len(values) for values in kept.values()):
        found["eigenvalue"] = _ragged(
            kept, "eigenvalues of the matrix times its transpose", scale="log", headline=len(_HEADLINES) + 1
        )
    if counts:
        found["eigenvalue_count"] = _ragged(counts, "how many eigenvalues each recorded one stands for", chart="none")
    return found


def _numbers(read: Mapping[str, Reading], names: Mapping[str, str], **attrs: Any) -> dict[str, Quantity]:
    def more(name: str) -> dict[str, Any]:
        shown = {} if name in _PICTURED else {"chart": "none"}
        return shown | ({"headline": _HEADLINES.index(name) + 1} if name in _HEADLINES else {})

    return {
        name: quantity(
            [r.numbers.get(name, math.nan) for r in read.values()],
            units="1", long_name=meaning, dims="matrix", coords={"matrix": tuple(read)}, **attrs, **more(name),
        )
        for name, meaning in names.items()
    }  # fmt: skip


def _category(
    values: Iterable[str], names: tuple[str, ...], read: Mapping[str, Reading], long_name: str, **attrs: Any
) -> Quantity:
    return quantity(
        np.array([names.index(value) for value in values], dtype=np.int64),
        units="1", long_name=long_name, dims="matrix", coords={"matrix": tuple(read)},
        flag_values=list(range(len(names))), flag_meanings=" ".join(names), **attrs,
    )  # fmt: skip


def _ragged(per_matrix: Mapping[str, np.ndarray], long_name: str, **attrs: Any) -> Quantity:
    labels = [(name, place) for name, values in per_matrix.items() for place in range(len(values))]
    return quantity(
        np.concatenate(list(per_matrix.values())),
        units="1", long_name=long_name, dims="matrix_eigen", coords={"matrix_eigen": labels}, **attrs,
    )  # fmt: skip
