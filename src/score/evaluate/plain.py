"""Answers so plain that their values are known without a computer algebra system.

Numbers, polynomials, and lists of them in brackets: most answers are, and reading one of them as LaTeX takes
math-verify 5 to 30 ms, after a second for its start. Here only what is plainly different is told apart, at one point
where letters stand for numbers; whatever is left open is math-verify's to decide.
"""

from __future__ import annotations

import ast
import cmath
import functools
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

NEAR = 1e-3
"""Values that differ by no more may be one number, rounded by whoever wrote it."""

LONGEST = 200
"""Characters; what is longer is not plain."""

_PLAIN = re.compile(
    r"(\\[dt]?frac(?![a-zA-Z])|\\sqrt(?![a-zA-Z[])|\\pi(?![a-zA-Z])|\\(cdot|times)(?![a-zA-Z])|[a-zA-Z\d.+*^(){}\s-])+",
    re.ASCII,
)
_SLASHED = re.compile(r"(-?\d+) ?/ ?(\d+)", re.ASCII)
_AMBIGUOUS = re.compile(r"[\d.]\s*\\[dt]?frac|[a-zA-Z]\s*\(|(?<![\\a-zA-Z])([a-zA-Z]{3}|ln|lg|pi)")
"""1\\frac{1}{2} is a sum; f(2) is no product, and neither are words and names of functions."""
_FRACTION = re.compile(r"\\[dt]?frac\s*(\{[^{}]*\}|\d)\s*(\{[^{}]*\}|\d)", re.ASCII)  # \frac43 is four thirds
_ROOT = re.compile(r"\\sqrt\s*(\{[^{}]*\}|[\da-zA-Z])", re.ASCII)
_POWER = re.compile(r"(?:\^|\*\*)\s*(?:\{\s*(-?\d+)\s*\}|(\d+))", re.ASCII)
_PRODUCT = re.compile(r"(?<=[\da-zA-Zπ)])\s*(?=[a-zA-Zπ√(])")
_TIMES = re.compile(r"\\(?:cdot|times)")
_DEGREES = re.compile(r"\^\\circ$|\^\{\\circ\}$|°$")
_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
_LIST = re.compile(r"(?:\\left)?(\(|\[|\\\{)(.+?)(?:\\right)?(\)|\]|\\\})", re.DOTALL)
_NAMED = re.compile(r"([a-zA-Z])\s*=\s*(?!=)")
_MATRIX = re.compile(r"\\begin\{([pb]matrix)\}(.+)\\end\{\1\}", re.DOTALL)
_INFINITY = re.compile(r"([+-]?)\\infty")

_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_NUMBERS = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}
_UNARY = {ast.UAdd: operator.pos, ast.USub: lambda value: 0 - value}  # -(4 + 0j) is -4 - 0j, whose root is -2j


@dataclass(frozen=True)
class Plain:
    """What stands around an answer (brackets, "x=" before it, "°" after it), its letters, and its values.

    Without values it is not plain.

    Values in braces, a set's, are in an order of their own.
    """

    around: str = ""
    letters: frozenset[str] = frozenset()
    values: tuple[complex, ...] = ()


def apart(left: str, right: str) -> bool:
    """Whether both are plain, of as many values with the same letters and the same around them, and one differs.

    math-verify comes to the same, except that it takes all intervals with their ends exchanged for the empty set.
    """
    ours, theirs = plain(left), plain(right)
    if (ours.around, ours.letters, len(ours.values)) != (theirs.around, theirs.letters, len(theirs.values)):
        return False
    return any(map(differ, ours.values, theirs.values))


@functools.lru_cache(maxsize=1 << 16)
def plain(answer: str) -> Plain:
    """What is known of an answer by its text alone."""
    answer = answer.strip()
    if len(answer) > LONGEST:
        return Plain()
    if _DEGREES.search(answer):
        return _listed("°", [_DEGREES.sub("", answer)])
    if named := _NAMED.match(answer):
        found = _value(answer[named.end() :])
        return Plain() if found is None else Plain(f"{named[1]}=", found[1], (found[0],))
    if matrix := _MATRIX.fullmatch(answer):
        rows = [row.split("&") for row in matrix[2].split(r"\\")]
        return _listed(f"{matrix[1]} {[len(row) for row in rows]}", [entry for row in rows for entry in row])
    listed = _LIST.fullmatch(answer)
    if not listed or (listed[1] != "\\{" and "," not in listed[2]):
        return _listed("", [answer])
    found = _listed(listed[1] + listed[3], listed[2].split(","))
    if listed[1] == "\\{":  # a set, in any order
        found = replace(found, values=tuple(sorted(found.values, key=lambda v: (round(v.real, 6), round(v.imag, 6)))))
        if not all(map(differ, found.values, found.values[1:])):
            return Plain()  # one of its elements may be another
    return found


def _listed(around: str, entries: Sequence[str]) -> Plain:
    found = [_value(entry.strip()) for entry in entries]
    if None in found:
        return Plain()
    letters = frozenset().union(*(letters for _, letters in found))
    return Plain(around, letters, tuple(value for value, _ in found))


def _value(text: str) -> tuple[complex, frozenset[str]] | None:
    r"""The value of an expression of digits, letters, `\frac`, `\sqrt`, `\pi`, signs, products and whole powers, or of
    3/4 or `\infty`; and its letters."""
    if infinite := _INFINITY.fullmatch(text):
        return complex(-math.inf if infinite[1] == "-" else math.inf), frozenset()
    text = _SLASHED.sub(r"\\frac{\1}{\2}", text) if _SLASHED.fullmatch(text) else text
    if not _PLAIN.fullmatch(text) or _AMBIGUOUS.search(text):
        return None
    text = _ZEROS.sub("", _TIMES.sub(" * ", text).replace("\\pi", "π"))
    text, before = _POWER.sub(r"**(\1\2)", text), ""
    while text != before:
        before, text = text, _ROOT.sub(_root, _FRACTION.sub(_quotient, text))
    if "^" in text or re.search(r"\*\*\([^()]*\)\s*\*\*", text):
        return None  # another power than a whole one, or one of a power
    try:
        tree = ast.parse(_PRODUCT.sub("*", text).replace("√", "sqrt").replace("π", "pi"), mode="eval").body
        value = _evaluated(tree)
    except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError):
        return None
    letters = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)) - _NUMBERS.keys() - {"sqrt"}
    return (value, letters) if cmath.isfinite(value) else None


def _quotient(fraction: re.Match[str]) -> str:
    return "(({})/({}))".format(*(part.strip("{}") for part in fraction.groups()))


def _root(root: re.Match[str]) -> str:
    return f"√({root[1].strip('{}')})"


def _evaluated(node: ast.expr) -> complex:
    """The value of a syntax tree of nothing but arithmetic. Raises `ValueError` on another one."""
    match node:
        case ast.Constant(int() | float() as number):
            return complex(number)
        case ast.Name(letter) if letter in _NUMBERS:
            return _NUMBERS[letter]
        case ast.Name(letter) if len(letter) == 1:
            return complex(math.sqrt(ord(letter)) / 12)  # between 2/3 and 1, and what no answer is about
        case ast.Call(ast.Name("sqrt"), [of], []):
            value = _evaluated(of)
            return cmath.sqrt(complex(value.real, value.imag + 0.0))  # of a number below 0: +i, also where it is -0j
        case ast.UnaryOp(sign, of) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_evaluated(of))
        case ast.BinOp(left, sign, right) if type(sign) in _BINARY:
            return _BINARY[type(sign)](_evaluated(left), _evaluated(right))
    raise ValueError(f"{type(node).__name__} is not arithmetic")


def differ(left: complex, right: complex) -> bool:
    """Whether two values are plainly not one; never of NaN."""
    if cmath.isinf(left) or cmath.isinf(right):
        return left != right
    return abs(left - right) > max(NEAR, 1e-9 * max(abs(left), abs(right)))
