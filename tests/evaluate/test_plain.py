"""Plain answers: their values, and that math-verify finds unequal whatever is told apart by them."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score.evaluate.mathverify import verify
from score.evaluate.metrics import math_equal
from score.evaluate.plain import LONGEST, Plain, apart, plain


@pytest.mark.parametrize(
    ("answer", "brackets", "expected"),
    [
        (" 12 ", "", [12]),
        ("-0.5", "", [-0.5]),
        ("3/4", "", [0.75]),
        (r"-\dfrac{3}{4}", "", [-0.75]),
        (r"\frac{\frac{1}{2}}{4}", "", [0.125]),
        (r"2\sqrt{3} + 1", "", [1 + 2 * math.sqrt(3)]),
        (r"\sqrt{2}\sqrt{8}", "", [4]),
        (r"\frac{\pi}{2}\sqrt{4}", "", [math.pi]),
        (r"3 \cdot 4", "", [12]),
        (r"\left( 2, \frac{\pi}{3} \right)", "()", [2, math.pi / 3]),
        ("[1, 4)", "[)", [1, 4]),
        ("(1, 2, -3)", "()", [1, 2, -3]),
        (r"\frac43 + \frac 59", "", [17 / 9]),
        (r"\frac9{18}\sqrt2", "", [math.sqrt(0.5)]),
        (r"\begin{pmatrix} 1 & -2 \\ \frac{1}{2} & 0 \end{pmatrix}", "pmatrix [2, 2]", [1, -2, 0.5, 0]),
        (r"\begin{bmatrix}1\\2\end{bmatrix}", "bmatrix [1, 1]", [1, 2]),
        ("x = 9", "x=", [9]),
        ("3 - 2i", "", [3 - 2j]),
        ("(1+i)(1-i)", "", [2]),
        (r"\sqrt{-4}", "", [2j]),
        ("2e^2", "", [2 * math.e**2]),
        (r"\{7, 1, -3\}", r"\{\}", [-3, 1, 7]),
        (r"\left\{ 7 \right\}", r"\{\}", [7]),
        (r"(-\infty, 3]", "(]", [-math.inf, 3]),
        (r"\infty", "", [math.inf]),
        ("025", "", [25]),
        (r"12 \times 2^{10} - 005.50", "", [12 * 1024 - 5.5]),
        (r"115^{\circ}", "°", [115]),
        ("2^{10}", "", [1024]),
        ("2**10 - 2^3", "", [1016]),
        ("3(1+2)(2)", "", [18]),
        (r"-2^2 + \frac{6}{3}^2", "", [0]),
    ],
)
def test_values_of_plain_answers(answer, brackets, expected):
    found = plain(answer)
    assert (found.around, found.letters) == (brackets, frozenset())
    assert found.values == pytest.approx(expected)


def test_letters_stand_for_numbers():
    assert plain("2x^2y + 3").letters == {"x", "y"}
    assert plain("2x^2y + 3").values == pytest.approx(plain("2yx x + 6 * 1 - 3").values)
    assert apart("x+1", "x-1")
    assert apart("(x, 1)", "(1, x)")
    assert apart("n^2", "n^3")
    assert not apart("x+1", "y+2"), "whether the name matters is not known here"
    assert not apart("(x-1)(x+1)", "x^2-1")
    assert not apart("x", "2")


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "",
            "12%",
            r"12\%",
            "1,250",
            "2 3",
            "1/2/3",
            "2^{1/2}",
            "2^x",
            "2^{2}^{2}",
            r"30^\circ C",
            "1e3",
            "²",
            "(",
            "()",
        ),
        *("x == 2", "f(2)", "x2", "x/2", "9^{999}", r"\text{odd}"),
        *(r"1\frac{1}{2}", r"2\dfrac{1}{2}", r"\frac123", r"\sqrt[3]{8}", r"\frac{1}{0}"),
        *(
            r"\{1, 2\%\}",
            r"(2\infty, 3]",
            r"(1, \text{a})",
            r"\pip",
            "1 +",
            "__import__",
            "-" * LONGEST + "1",
            "9" * 400,
        ),
    ],
)
def test_what_is_not_plain_has_no_values(answer):
    assert plain(answer) == Plain()
    assert not apart(answer, "77")


NUMBERS = [
    *("2", "-2", "2.0004", "2.5", "200", "7/3", r"\frac{7}{3}", r"\frac{-7}{3}", "2.3333", r"2\sqrt{3}", r"\sqrt{12}"),
    *(r"\sqrt{13}", r"\frac{\sqrt{3}}{2}", r"\frac{\pi}{2}", r"2\pi", "1.5708", r"1-\sqrt{2}", r"-\sqrt{2}+1", "0"),
    *(
        r"\{1, 2\}",
        r"\{3, 1\}",
        r"\{2, 1\}",
        r"\{2\}",
        r"(-\infty, 3]",
        r"(-\infty, 2]",
        r"(3, \infty)",
        r"(2, +\infty)",
    ),
    *("x=2", "x=3", "y=2", "1+2i", "2i+1", "1-2i", "i", "e", "2e", r"\sqrt{-4}", "2i", "i^2", "-1"),
    *(r"\frac43", r"\sqrt2", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}"),
    *(r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 3 \end{bmatrix}"),
    *("90°", r"45^\circ", "045", r"2 \times 3"),
    *("x", "2x", "x+1", "x-1", "x^2-1", "(x-1)(x+1)", "x^2+1", "xy", "yx", "x+y", r"\frac{x}{2}", "odd", "B", "C"),
    *("(1, 2)", "(2, 1)", "[1, 2]", "(1, 2]", r"(1, \frac{4}{2})", "(1, 2, 3)", r"\left[1, \sqrt{4}\right]"),
]


def test_what_is_told_apart_math_verify_finds_unequal():
    pairs = [pair for pair in itertools.product(NUMBERS, NUMBERS) if apart(*pair)]
    assert len(pairs) > 200
    assert [pair for pair in pairs if verify(pair[0], [pair[1]])] == []


whole = st.integers(-99, 99)


@given(whole, whole, st.integers(1, 99), st.integers(1, 99))
@settings(max_examples=60, deadline=None)
def test_of_equal_numbers_none_is_told_apart(a, b, c, d):
    assert not apart(rf"\frac{{{a}}}{{{c}}}", rf"\frac{{{a * d}}}{{{c * d}}}")
    assert not apart(f"{a}/{c}", rf"\frac{{{a}}}{{{c}}}")
    assert not apart(rf"{a}\sqrt{{{c * d * d}}}", rf"{a * d}\sqrt{{{c}}}")
    assert not apart(f"({a}, {b}]", rf"\left( \frac{{{a * c}}}{{{c}}},{b}.0 \right]")


@given(whole, whole, whole)
def test_numbers_apart_are_told_apart_in_any_place(a, b, off):
    assert apart(f"({a}, {b})", f"({a}, {b + off})") == apart(f"{b}", f"{b + off}") == (off != 0)
    assert not apart(f"({a}, {b})", f"[{a}, {b + off}]")


def test_intervals_without_a_point_are_told_apart_where_math_verify_takes_both_for_the_empty_set():
    assert verify("(5, 3]", ["(7, 2]"])
    assert not math_equal("(5, 3]", ["(7, 2]"])


def test_plain_answers_need_no_verifier():
    class Unasked:
        def equal(self, prediction, golds):
            raise AssertionError(f"asked about {prediction}")

    assert not math_equal(r"\boxed{\frac{1}{3}}", [r"\frac{1}{2}"], Unasked())
    assert not math_equal("(1, 3]", ["(1, 2]"], Unasked())
    with pytest.raises(AssertionError, match="asked about 1/2"):
        math_equal("1/2", ["0.5"], Unasked())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sqrt{\frac{x+1}{1-x}}", r"\sqrt{\frac{-x-1}{x-1}}"),
        (r"\sqrt{\frac{1+x}{1-x}}", r"\sqrt{-\frac{x+1}{x-1}}"),
        (r"\sqrt{\frac{a}{a-b}}", r"\sqrt{\frac{-a}{b-a}}"),
        (r"\sqrt{\frac{1}{-4}}", r"\frac{i}{2}"),
        (r"\sqrt{1-x}\sqrt{1-y}", r"\sqrt{(1-x)(1-y)}"),
        (r"\{1,1,2\}", r"\{1,2,2\}"),
        (r"\{2,2+i\}", r"\{2+i,\sqrt{2}\sqrt{2}\}"),
        ("(2pi)^2", "4pi^2"),
        ("(x-y)^{6}", "x^6-6x^5y+15x^4y^2-20x^3y^3+15x^2y^4-6xy^5+y^6"),
        (r"30^\circ", r"\frac{\pi}{6}"),
        ("2 ln 3", "ln 9"),
        ("(sin x)^2", "sin^2 x"),
        ("x=2", "2"),
    ],
)
def test_equal_answers_in_other_words_are_left_to_math_verify(one, other):
    assert not apart(one, other)
    assert not apart(other, one)
