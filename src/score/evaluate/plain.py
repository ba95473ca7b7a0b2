"""Answers so plain that their values are known without a computer algebra system: numbers, and pairs of numbers.

Most answers are, and reading one of them as LaTeX takes math-verify 5 to 30 ms. Here only what is plainly different is
told apart; whatever is left open is math-verify's to decide.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import re

NEAR = 1e-3
"""Values that differ by no more may be one number, rounded by whoever wrote it."""

LONGEST = 200
"""Characters; what is longer is not plain."""

_NUMBER = re.compile(r"(\\[dt]?frac(?=\{)|\\sqrt(?=\{)|\\pi(?![a-zA-Z])|\\cdot(?![a-zA-Z])|[\d.+{}\s-])+", re.ASCII)
_SLASHED = re.compile(r"(-?\d+) ?/ ?(\d+)", re.ASCII)
_MIXED = re.compile(r"[\d.]\s*\\[dt]?frac")  # 1\frac{1}{2} is a sum, x\frac{1}{2} a product
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\{([^{}]*)\}")
_PRODUCT = re.compile(r"(?<=[\d)i]) *(?=sqrt|pi|\()")
_LIST = re.compile(r"(?:\\left)?([(\[])(.+,.+?)(?:\\right)?([)\]])", re.DOTALL)

_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def apart(left: str, right: str) -> bool:
    """Whether both answers are plain numbers, or lists of as many in the same brackets, of plainly different value.

    math-verify comes to the same, except that it takes all intervals with their ends exchanged for the empty set.
    """
    (brackets, ours), (others, theirs) = values(left), values(right)
    return brackets == others and len(ours) == len(theirs) and any(map(_differ, ours, theirs))


@functools.lru_cache(maxsize=1 << 16)
def values(answer: str) -> tuple[str, tuple[float, ...]]:
    """(brackets, values) of a plain answer; a number has no brackets. Without values where it is not plain."""
    answer = answer.strip()
    if len(answer) > LONGEST:
        return "", ()
    listed = _LIST.fullmatch(answer)
    parts = [value(part) for part in (listed[2].split(",") if listed else [answer])]
    return (listed[1] + listed[3] if listed else "", () if None in parts else tuple(parts))


def value(text: str) -> float | None:
    r"""The value of a number written with digits, `\frac`, `\sqrt`, `\pi`, signs and products, or as 3/4; else None."""
    text = _SLASHED.sub(r"\\frac{\1}{\2}", text.strip()) if _SLASHED.fullmatch(text.strip()) else text.strip()
    if not _NUMBER.fullmatch(text) or _MIXED.search(text):
        return None
    text, before = text.replace("\\cdot", " * ").replace("\\pi", "pi"), ""
    while text != before:
        before, text = text, _ROOT.sub(r"sqrt(\1)", _FRACTION.sub(r"((\1)/(\2))", text))
    try:
        found = _evaluated(ast.parse(_PRODUCT.sub("*", text), mode="eval").body)
    except (ValueError, SyntaxError, ArithmeticError, RecursionError):
        return None
    return found if math.isfinite(found) else None


def _evaluated(node: ast.expr) -> float:
    """The value of a syntax tree of nothing but arithmetic. Raises `ValueError` on another one."""
    match node:
        case ast.Constant(int() | float() as number):
            return float(number)
        case ast.Name("pi"):
            return math.pi
        case ast.Call(ast.Name("sqrt"), [of], []):
            return math.sqrt(_evaluated(of))
        case ast.UnaryOp(sign, of) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_evaluated(of))
        case ast.BinOp(left, sign, right) if type(sign) in _BINARY:
            return _BINARY[type(sign)](_evaluated(left), _evaluated(right))
    raise ValueError(f"{type(node).__name__} is not arithmetic")


def _differ(left: float, right: float) -> bool:
    return abs(left - right) > max(NEAR, 1e-9 * max(abs(left), abs(right)))
