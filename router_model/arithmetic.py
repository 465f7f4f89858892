"""Arithmetic that an answer claims: equations between numbers, and whether they hold.

Two forms are read: calculator notes as language models are trained to write them (`<<12/2=6>>`), and equations in plain
text (`12 / 2 = 6`). Nothing is evaluated but numbers, + - * / % and brackets.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_EQUATIONS = 60
"""Of a long answer this many of each form are checked."""

MAX_CHARS = 120
"""Longer expressions are not read."""

TOLERANCE = 0.011
"""Relative error allowed, and absolute error in units of the last digit: answers round."""

_NOTE = re.compile(r"<<([^<>=]{1,120})=([^<>=]{1,40})>>")
_PLAIN = re.compile(
    r"(?<![\w.,/*+=-])(\(?\$?\d[\d,.]*%?(?:\s*[-+*/x×÷]\s*\(?\$?\d[\d,.]*%?\)?)+)\s*=\s*\$?(-?\d[\d,]*(?:\.\d+)?)"
)
_ALLOWED = re.compile(r"[\d.+\-*/() ]+")

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, slots=True)
class Equation:
    """One claim. claimed: the number right of the sign. actual: what the left side comes to."""

    claimed: float
    actual: float

    @property
    def holds(self) -> bool:
        """Whether both sides are equal but for rounding."""
        return abs(self.claimed - self.actual) <= TOLERANCE * max(abs(self.actual), 1.0)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What was found: equations in notes and in plain text, and notes that could not be read (`<<4*3+6=18+6=24>>`)."""

    notes: tuple[Equation, ...]
    plain: tuple[Equation, ...]
    n_unreadable: int

    @classmethod
    def of(cls, text: str) -> "Arithmetic":
        """Read an answer."""
        found = _NOTE.findall(text)[:MAX_EQUATIONS]
        notes = tuple(_equations(found))
        plain = tuple(_equations(_PLAIN.findall(without_notes(text))[:MAX_EQUATIONS]))
        return cls(notes, plain, min(text.count("<<"), MAX_EQUATIONS) - len(notes))


def without_notes(text: str) -> str:
    """The text as a reader sees it, without calculator notes."""
    return re.sub(r"<<[^<>]*>>", "", text)


def number(text: str) -> float | None:
    """The number that a text like `1,200.50` or `25%` stands for; None for anything else."""
    try:
        value = float(text.replace(",", "").replace("$", "").rstrip("%. "))
    except ValueError:
        return None
    return value / 100 if "%" in text else value


def _equations(sides: list[tuple[str, str]]) -> Iterator[Equation]:
    for left, right in sides:
        claimed, actual = number(right), evaluate(left)
        if claimed is not None and actual is not None:
            yield Equation(claimed, actual)


def evaluate(expression: str) -> float | None:
    """The value of an expression of numbers, None where it is none, is too long, or divides by zero."""
    plain = re.sub(r"(\d)%", r"\1/100", expression.replace(",", "").replace("$", ""))
    plain = re.sub(r"[x×]", "*", plain).replace("÷", "/").strip()
    if len(plain) > MAX_CHARS or "**" in plain or "//" in plain or not _ALLOWED.fullmatch(plain):
        return None
    try:
        return _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
    raise ValueError("no arithmetic")
