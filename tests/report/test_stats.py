"""Intervals against textbook values, against other implementations, and against what an interval promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from score.report.stats import average, holm, macro_average, paired_difference, share, wilson


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_wilson_agrees_with_scipy(case, confidence):
    successes, n = case
    ours = wilson(successes, n, confidence)
    theirs = scipy_stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= ours.mean + 1e-12 <= ours.high + 2e-12 <= 1 + 2e-12


def test_zero_of_thirty_is_not_certainty():
    assert wilson(0, 30).high == pytest.approx(0.1135, abs=1e-3)


def test_the_bootstrap_is_seeded():
    scores = [np.arange(20) % 3 / 2, np.arange(7) % 2]
    assert macro_average(scores) == macro_average(scores)
    assert macro_average(scores, seed=1) != macro_average(scores)


def test_benchmarks_weigh_the_same_whatever_their_size():
    interval = macro_average([np.ones(500), np.zeros(10)])
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_the_bootstrap_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(3)
    scores = [rng.random(400) < 0.4, rng.random(300) < 0.7]
    interval = macro_average(scores)
    deviation = np.sqrt(sum(s.var() / len(s) for s in scores)) / len(scores)
    assert interval.mean == pytest.approx(np.mean([s.mean() for s in scores]))
    assert interval.low == pytest.approx(interval.mean - 1.96 * deviation, abs=0.004)
    assert interval.high == pytest.approx(interval.mean + 1.96 * deviation, abs=0.004)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(200):
        interval = macro_average([rng.random(80) < 0.3, rng.random(60) < 0.6], resamples=500, seed=i)
        hits += interval.low <= 0.45 <= interval.high
    assert 180 <= hits <= 199


def test_pairing_removes_the_difficulty_of_questions():
    rng = np.random.default_rng(0)
    difficulty = rng.random(200)
    left, right = difficulty + 0.05 + rng.normal(0, 0.01, 200), difficulty
    paired = paired_difference([left], [right]).interval
    assert paired.mean == pytest.approx(0.05, abs=0.005)
    assert 0.045 < paired.low < paired.high < 0.055
    alone = macro_average([left])
    assert alone.high - alone.low > 5 * (paired.high - paired.low)


def test_a_system_does_not_differ_from_itself():
    scores = [np.random.default_rng(1).random(30)]
    same = paired_difference(scores, scores)
    assert (same.interval.mean, same.interval.low, same.interval.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="zip"):
        paired_difference(scores, scores * 2)


def test_an_average_of_zeros_is_not_certainty():
    interval, method = average([np.zeros(60), np.zeros(30)])
    assert method == "wilson"
    assert (interval.mean, interval.low) == pytest.approx((0, 0), abs=1e-12)
    assert wilson(0, 90).high < interval.high < wilson(0, 60).high
    assert average([np.zeros(40)])[0].high == pytest.approx(wilson(0, 40).high)
    one = np.array([0.0, 0.5, 1.0, 1.0])
    assert average([one]) == (share(one), "wilson")
    mixed = [np.zeros(60), np.array([0.0, 1.0, 1.0])]
    assert average(mixed) == (macro_average(mixed), "bootstrap")


def samples(rng, n, p, k):
    """Shares of right ones [n] among k samples of each question, of questions that are easy or hard (a beta
    distribution) where there are several."""
    chances = np.full(n, p) if k == 1 else rng.beta(2 * p, 2 * (1 - p), n)
    return rng.binomial(k, chances) / k


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("p", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("n", [30, 125, 500])
def test_a_cells_interval_covers_the_truth(n, p, k):
    rng = np.random.default_rng(0)
    intervals = [share(samples(rng, n, p, k)) for _ in range(2000)]
    assert np.mean([interval.low <= p <= interval.high for interval in intervals]) >= 0.93


def test_a_percentile_bootstrap_would_not():
    rng = np.random.default_rng(0)
    intervals = [macro_average([samples(rng, 30, 0.02, 1)], resamples=300) for _ in range(300)]
    assert np.mean([interval.low <= 0.02 <= interval.high for interval in intervals]) < 0.6


@pytest.mark.parametrize(("n", "score"), [(30, 1 / 3), (7, 0.1), (5, 0.1), (1, 0.5)])
def test_scores_that_are_all_alike_are_not_certainty(n, score):
    interval = share(np.full(n, score))
    assert interval.high == pytest.approx(wilson(n * score, n).high)
    assert interval.high > score + 0.01


def test_more_samples_of_a_question_make_a_narrower_interval():
    rng = np.random.default_rng(0)
    widths = [np.mean([(i := share(samples(rng, 200, 0.4, k))).high - i.low for _ in range(200)]) for k in (2, 8)]
    assert widths[1] < 0.9 * widths[0]


def test_a_true_difference_is_found_and_none_is_rarely():
    rng = np.random.default_rng(0)
    chances = rng.random(150)

    def run(gain=0.0):
        return [(rng.random(150) < chances + gain).astype(float)]

    nothing = [paired_difference(run(), run(), resamples=500).p for _ in range(300)]
    assert np.mean([p < 0.05 for p in nothing]) < 0.09
    assert paired_difference(run(0.3), run()).p < 0.01


@pytest.mark.parametrize(("wins", "losses"), [(5, 0), (6, 0), (8, 1), (3, 3)])
def test_few_differing_questions_are_as_significant_as_the_exact_test_says(wins, losses):
    left, right = np.zeros(30), np.zeros(30)
    left[:wins], right[wins : wins + losses] = 1, 1
    exact = scipy_stats.binomtest(wins, wins + losses).pvalue
    assert paired_difference([left], [right]).p == pytest.approx(exact, abs=0.015)


def test_one_question_proves_nothing():
    assert paired_difference([np.ones(1)], [np.zeros(1)]).p == 1


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]), ([0.6, 0.5], [1.0, 1.0]), ([0.2], [0.2]), ([], [])],
)
def test_holm(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    rejected = set()
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] * (len(p_values) - rank) > level:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected
