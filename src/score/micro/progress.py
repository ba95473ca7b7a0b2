"""How far the executed steps of an episode have come on a gold graph, and which variables they have left defined."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping

from score.micro.graph import Graph
from score.records import Step

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
_FUNCTIONS = {"max": max, "min": min, "str": str, "int": int}
ANSWER = "final_answer_print"


class Progress:
    """`done` are the indices of nodes found, `variables` what assignments have left, as far as they are simple arithmetic."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.done: set[int] = set()
        self.variables: dict[str, int | str] = {}

    @property
    def defined(self) -> set[str]:
        """The variables that hold the gold value of the node named like them."""
        return {n.variable for n in self.graph.nodes if n.variable and str(self.variables.get(n.variable)) == n.value}

    def take(self, step: Step) -> bool:
        """Takes a step into account; True if it was right."""
        tree = _parse(step.code)
        if step.error or tree is None:
            return False
        answer = self._run(tree)
        if answer is not None:
            return answer == self.graph.answer
        found = next(
            (i for i in self._undone() if self.graph.nodes[i].stdout == (step.observation or "").strip()), None
        )
        if found is None:
            return False
        self.done |= self.graph.ancestors(found)
        return True

    def _undone(self) -> list[int]:
        return [i for i in range(len(self.graph.nodes)) if i not in self.done]

    def _run(self, tree: ast.Module) -> str | None:
        """Follows top-level assignments; returns the text of the last answer given, if any ("" if it cannot be followed)."""
        answer = None
        for line in tree.body:
            if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
                value = evaluate(line.value, self.variables)
                if value is None:
                    self.variables.pop(line.targets[0].id, None)
                else:
                    self.variables[line.targets[0].id] = value
            elif isinstance(line, ast.Expr) and _calls(line.value, ANSWER):
                value = evaluate(line.value.args[0], self.variables) if line.value.args else None
                answer = "" if value is None else str(value)
        return answer


def _parse(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError):
        return None


def _calls(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def evaluate(node: ast.expr, variables: Mapping[str, int | str]) -> int | str | None:
    """The value of an expression of numbers, strings, variables, + - * and max / min; None if it is anything else."""
    match node:
        case ast.Constant(value=int() | str() as value):
            return value
        case ast.Name(id=name):
            return variables.get(name)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -value if isinstance(value := evaluate(inner, variables), int) else None
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            operands = [evaluate(left, variables), evaluate(right, variables)]
            return _OPERATORS[type(op)](*operands) if all(isinstance(o, int) for o in operands) else None
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS and args:
            values = [evaluate(arg, variables) for arg in args]
            return None if None in values else _FUNCTIONS[name](*values)
    return None
