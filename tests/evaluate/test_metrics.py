"""What the rules call equal. The answers are our own; the published golds are only compared with themselves."""

import itertools
import json
import os
import random
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_verify import verify

from score.evaluate.mathverify import Verifier, _parsed, apart
from score.evaluate.metrics import decide, exact, exact_match, math_equal, token_f1, unboxed

OFFICIAL = Path(__file__).parents[3] / "shared" / "data" / "score-official" / "inference" / "inference_data"


@pytest.fixture(scope="module")
def verifier():
    verifier = Verifier(timeout_s=20)  # generous: only the tests about time set a tight limit
    yield verifier
    verifier.close()


def published(name):
    if not OFFICIAL.is_dir():
        pytest.skip("the published data files are not at ../shared/data/score-official")
    rows = [json.loads(line) for line in (OFFICIAL / f"{name}.jsonl").read_text().split("\n") if line]
    return [str(row["true_answer"]) for row in rows]


EQUAL = [
    (r"\boxed{204}", "204"),
    ("204.0", "204"),
    ("042", "42"),
    (r"First \boxed{1}, no: $\boxed{\frac{3}{4}}$.", "0.75"),
    (r"\frac34", "3/4"),
    (r"\dfrac{3}{4}", r"\frac{3}{4}"),
    ("-0.5", r"-\frac{1}{2}"),
    ("1,250", "1250"),
    (r"1{,}250", "1250"),
    ("12%", r"12\%"),
    ("12%", "12"),
    ("0.12", r"12\%"),
    (r"\sqrt{12}", r"2\sqrt{3}"),
    ("sqrt(3)/2", r"\frac{\sqrt{3}}{2}"),
    ("3*sqrt(2)", r"3\sqrt2"),
    ("2**31 - 1", "2^{31}-1"),
    ("2^31", "2^{31}"),
    ("2*pi", r"2\pi"),
    ("(2, pi/3)", r"\left( 2, \frac{\pi}{3} \right)"),
    ("[1, 4)", r"\left[1,4\right)"),
    (r"(-\infty, 3] \cup (5, \infty)", r"(-\infty,3]\cup(5,\infty)"),
    (r"\{3, 1, 2\}", r"\{1,2,3\}"),
    ("7, 5", "5,7"),
    ("x = 9", "9"),
    ("(x-1)(x+1)", "x^2-1"),
    ("30°", r"30^\circ"),
    (r"30^{\circ}", "30"),
    (r"15 \text{ cm}^2", "15"),
    ("15 dollars", "15"),
    (r"\$15", "15"),
    (r"\text{odd}", "odd"),
    ("Odd", r"\text{odd}"),
    (r"\boxed{\text{(B)}}", "B"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"1 + 2i", "2i+1"),
]

DIFFERENT = [
    ("203", "204"),
    ("-204", "204"),
    ("0.333", r"\frac13"),
    ("3.14", r"\pi"),
    ("[1, 4]", "[1,4)"),
    ("(1, 4)", "(4, 1)"),
    (r"\{1, 2\}", r"\{1, 2, 3\}"),
    ("2x", "2"),
    ("2 pi", "2"),
    ("2 sin x", "2"),
    ("15 dollars", "16"),
    ("even", r"\text{odd}"),
    ("B", r"\text{(C)}"),
    ("x^2+1", "x^2-1"),
    (r"\boxed{3} is wrong, \boxed{4}", "3"),
    ("I do not know", "7"),
    (r"\boxed{", "1"),
    ("}{", "1"),
]


@pytest.mark.parametrize(("prediction", "gold"), EQUAL)
def test_equal_as_mathematics(verifier, prediction, gold):
    assert math_equal(prediction, [gold], verifier)
    assert math_equal(prediction, ["-77", gold], verifier)


@pytest.mark.parametrize(("prediction", "gold"), DIFFERENT)
def test_different_as_mathematics(verifier, prediction, gold):
    assert not math_equal(prediction, [gold], verifier)


@pytest.mark.parametrize("name", ["aime24", "aime25", "olymmath", "math_500"])
def test_published_golds_equal_themselves_and_not_their_neighbours(verifier, name):
    golds = published(name)[:60]
    assert all(math_equal(f"So the answer is $\\boxed{{{gold}}}$.", [gold], verifier) for gold in golds)
    pairs = [(a, b) for a, b in itertools.pairwise(golds) if a != b and (a, b) != ("5", "x=5")]
    assert [pair for pair in pairs if math_equal(pair[0], [pair[1]], verifier)] == []


NUMBERS = [
    *("2", "2.0000001", "2.001", "-2", r"\frac{7}{3}", "2.333333", "7/3", r"2\sqrt{3}", r"\sqrt{12}", r"\sqrt{13}"),
    *("200%", r"2\%", r"\frac{\pi}{2}", "1.570796", "1+2i", "10^{20}", "10^{20}+1", "x=2", "(1,2)", r"\text{two}"),
    *("x", "y", "2x+1", "1+2x", "x^2-1", "(x-1)(x+1)", "x+y", "y+x"),
    *(r"\sqrt{x^2}", r"\sin^2 x+\cos^2 x", r"\frac{x^2}{x}"),
]


def test_what_is_not_asked_of_math_verify_it_would_not_find_equal():
    assert_apart_is_unequal(itertools.product(NUMBERS, NUMBERS))
    assert apart(_parsed(r"2\sqrt{5}"), _parsed(r"2\sqrt{3}+1"))


def test_published_golds_that_are_not_compared_are_unequal():
    golds = published("olymmath") + published("math_500")
    assert_apart_is_unequal(random.Random(0).sample(list(itertools.permutations(golds, 2)), 1000))


def assert_apart_is_unequal(pairs):
    pairs = [(gold, guess) for gold, guess in pairs if apart(_parsed(gold), _parsed(guess))]
    assert pairs
    equal = [pair for pair in pairs if verify(*map(_parsed, pair), timeout_seconds=None)]
    assert equal == []


@given(st.integers(-(10**18) + 1, 10**18 - 1), st.integers(-3, 3), st.booleans())
@settings(max_examples=60)
def test_integers_compare_as_math_verify_compares_them(verifier, gold, off, padded):
    guess = f"{gold + off:04d}" if padded else str(gold + off)
    assert math_equal(guess, [str(gold)]) == verifier.equal(guess, [str(gold)]) == (off == 0)


def test_a_comparison_that_never_ends_is_cut_and_the_next_one_works():
    verifier = Verifier(timeout_s=2)
    assert verifier.equal("1", ["1"])
    start = time.monotonic()
    assert not verifier.equal("9^{9^{9^{9}}}", ["9^{9^{9^{8}}}"])
    assert time.monotonic() - start < 10
    assert verifier.equal("1/2", ["0.5"])
    verifier.close()


def test_one_verifier_serves_threads_and_forks(verifier):
    results = {}

    def ask(i):
        results[i] = verifier.equal(str(i), [str(i - i % 2)])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: i % 2 == 0 for i in range(8)}
    child = os.fork()
    if child == 0:
        os._exit(0 if verifier.equal("1/4", ["0.25"]) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert verifier.equal("1/4", ["0.25"])


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{52}", "52"),
        (r" The final answer is \[ \boxed{\frac{1}{2}} \] ", r"\frac{1}{2}"),
        (r"\boxed{\text{New York}}", "New York"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} then \boxed{2", "1"),
        ("  plain  ", "plain"),
        (r"\text{a} and \text{b}", r"\text{a} and \text{b}"),
    ],
)
def test_unboxed(text, content):
    assert unboxed(text) == content


def test_token_f1_by_hand():
    assert token_f1("The Eiffel Tower, Paris", ["eiffel tower"]) == pytest.approx(2 * 2 / (3 + 2))
    assert token_f1("Paris", ["London", "Paris, France"]) == pytest.approx(2 / 3)
    assert token_f1(r"\boxed{\text{the Seine}}", ["Seine"]) == 1.0
    assert token_f1("a a b", ["a-b a-b c"]) == 0.0
    assert token_f1("x x y", ["x y y"]) == pytest.approx(2 * 2 / 6)
    assert token_f1("", ["x"]) == 0.0


def test_the_two_normalisations_differ_in_punctuation():
    assert token_f1("Washington, D.C.", ["Washington DC"], "squad") == 1.0
    assert token_f1("Washington, D.C.", ["Washington DC"], "arpo") == 0.0
    assert exact_match("The Answer.", ["answer"], "squad")
    assert not exact_match("The Answer.", ["answer"], "arpo")
    assert exact_match("The Answer", ["answer"], "arpo")


def test_an_answer_that_is_an_article_is_an_answer():
    assert exact_match("A", ["A"])
    assert exact_match("a.", ["A"])
    assert not exact_match("the", ["A"])
    assert not exact_match("B", ["A"])


words = st.text("abcXYZ .,-", max_size=12)


@given(words, st.lists(words, min_size=1, max_size=3), st.sampled_from(["squad", "arpo"]))
def test_f1_is_a_symmetric_share_and_one_on_a_match(prediction, golds, normalisation):
    f1 = token_f1(prediction, golds, normalisation)
    assert 0.0 <= f1 <= 1.0
    assert f1 == max(token_f1(gold, [prediction], normalisation) for gold in golds)
    if exact_match(prediction, golds, normalisation) and any(token_f1(g, [g], normalisation) for g in [prediction]):
        assert f1 == 1.0


@pytest.mark.parametrize(
    ("prediction", "gold", "equal"),
    [
        (" 42\n", "42", True),
        ("42.0", "42", True),
        ("1,000", "1000", True),
        ("Zadu", "Zadu", True),
        ("-3", "3", False),
        ("zadu", "Zadu", False),
        ("", "0", False),
        ("4 2", "42", False),
    ],
)
def test_exact(prediction, gold, equal):
    assert exact(prediction, [gold]) is equal


def test_decide():
    assert decide("judge", "42", ["The 42"]) == 1.0
    assert decide("judge", "forty-two", ["42"]) is None
    assert decide("exact", "7.0", ["7"]) == 1.0
    assert decide("math", r"\frac{1}{2}", ["0.5"]) == 1.0
    assert decide("f1", "x y", ["x"]) == pytest.approx(2 / 3)
    for metric in ("math", "f1", "judge", "exact"):
        assert decide(metric, None, ["42"]) == 0.0
        assert decide(metric, "  ", ["42"]) == 0.0
