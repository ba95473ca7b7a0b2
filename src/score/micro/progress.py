"""How far the executed steps of an episode have come on a gold graph, and which variables they have left defined."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping

from score.micro.graph import Graph
from score.records import Step

Value = int | str

_ANSWER = "final_answer_print"
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
_FUNCTIONS = {"max": max, "min": min, "str": str, "int": int}


class Progress:
    """`done` holds the indices of the nodes found. Code is never executed here: what it printed is in the steps."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.done: set[int] = set()
        self._variables: dict[str, Value | None] = {}

    @property
    def defined(self) -> set[str]:
        """The variables of nodes that hold the right value."""
        return {n.variable for n in self.graph.nodes if n.variable and str(self._variables.get(n.variable)) == n.value}

    def take(self, step: Step) -> bool:
        """Takes a step into account and says whether it was right: see `Oracle.first_error`."""
        tree = _parse(step.code)
        if step.error or tree is None:
            return False
        answers = self._follow(tree)
        if answers:
            return str(answers[-1]) == self.graph.answer
        printed = (step.observation or "").strip()
        for index, node in enumerate(self.graph.nodes):
            if index not in self.done and node.stdout == printed:
                self.done |= self.graph.ancestors(index)
                return True
        return False

    def _follow(self, tree: ast.Module) -> list[Value | None]:
        """Follows the top-level assignments; returns the answers given, None for one that cannot be followed."""
        answers: list[Value | None] = []
        for line in tree.body:
            match line:
                case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                    self._variables[name] = evaluate(expression, self._variables)
                case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=[expression], keywords=[])) if (
                    name == _ANSWER
                ):
                    answers.append(evaluate(expression, self._variables))
        return answers


def _parse(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # all of them are ways in which a text is not Python
        return None


def evaluate(expression: ast.expr, variables: Mapping[str, Value | None]) -> Value | None:
    """The value of an expression of constants, variables, + - * and max, min, str, int; None for anything else."""
    match expression:
        case ast.Constant(value=int() | str() as value):
            return value
        case ast.Name(id=name):
            return variables.get(name)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            value = evaluate(inner, variables)
            return -value if isinstance(value, int) else None
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            a, b = evaluate(left, variables), evaluate(right, variables)
            return _OPERATORS[type(op)](a, b) if isinstance(a, int) and isinstance(b, int) else None
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _call(name, [evaluate(argument, variables) for argument in arguments])
    return None


def _call(name: str, values: list[Value | None]) -> Value | None:
    if None in values:
        return None
    try:
        return _FUNCTIONS[name](*values)
    except (TypeError, ValueError):  # the sandbox has shown the model the same error
        return None
