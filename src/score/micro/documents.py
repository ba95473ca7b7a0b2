"""Generic documents on which the student is pre-trained before it meets any task: copying, looking up, reading, code.

Entities and facts are random, so nothing of the world is learned here; there is no task, no plan and no trajectory.
Chat and code boilerplate occurs, so that its tokens are no strangers.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from score.micro.graph import calculate
from score.micro.world import NAMES, NUMBER, RELATIONS

_NUMBERS = tuple(map(str, range(10, 100)))
_DIGITS = tuple(map(str, range(2, 10)))
_SEPARATORS = (", ", ". ", " ", " is ", " has ", " = ")


def _pair(rng: random.Random, given: str, wanted: str) -> str:
    """Two texts, the second to be written from the first: one below the other, or as a chat."""
    if rng.random() < 0.4:
        return f"<|user|>{given}<|end|><|assistant|>{wanted}<|end|>"
    return f"{given}\n{wanted}<|end|>"


def copied_list(rng: random.Random) -> str:
    """A list, twice."""
    pool = rng.choice((NAMES, NAMES, _NUMBERS, NAMES + _DIGITS))
    text = rng.choice(_SEPARATORS).join(rng.choice(pool) for _ in range(rng.randint(3, 10)))
    return _pair(rng, text, text)


def copied_phrases(rng: random.Random) -> str:
    """Phrases like "Kego's rival's mentor", twice."""
    relations = list(RELATIONS)
    phrases = [
        "'s ".join([rng.choice(NAMES), *rng.choices(relations, k=rng.randint(1, 4))]) for _ in range(rng.randint(1, 4))
    ]
    text = rng.choice(_SEPARATORS).join(phrases)
    return _pair(rng, text, text)


def dictionary(rng: random.Random) -> str:
    """Keys with values, then the same entries in another order, perhaps with another sign between them."""
    pool = rng.choice((NAMES, _NUMBERS, _DIGITS))
    entries = [(key, rng.choice(pool)) for key in rng.sample(NAMES, rng.randint(2, 5))]
    first, second = rng.choice(_SEPARATORS), rng.choice(_SEPARATORS)
    given = "\n".join(first.join(entry) for entry in entries)
    return _pair(rng, given, "\n".join(second.join(entry) for entry in rng.sample(entries, len(entries))))


def _facts(rng: random.Random, count: int) -> list[tuple[str, str, str]]:
    """At most `count` different random (name, relation, value)."""
    names = rng.sample(NAMES, rng.randint(1, count))
    keys = dict.fromkeys((rng.choice(names), rng.choice(list(RELATIONS))) for _ in range(count))
    return [(name, r, rng.choice(_NUMBERS if RELATIONS[r][1] == NUMBER else NAMES)) for name, r in keys]


def reading(rng: random.Random) -> str:
    """Facts, then questions about some of them with the answers."""
    facts = _facts(rng, rng.randint(2, 5))
    asked = rng.sample(facts, rng.randint(1, len(facts)))
    text = " ".join(f"{name}'s {relation} is {value}." for name, relation, value in facts)
    if rng.random() < 0.4:
        turns = [f"<|user|>What is {n}'s {r}?<|end|><|assistant|>{value}<|end|>" for n, r, value in asked]
        return f"<|user|>{text}<|end|>{''.join(turns)}"
    lines = [f"What is {name}'s {relation}? {value}" for name, relation, value in asked]
    return "\n".join([text, *lines]) + "<|end|>"


def pages(rng: random.Random) -> str:
    """Search results after the call that found them, or before a question about them; unrelated to each other."""
    parts = []
    for name, relation, value in _facts(rng, rng.randint(1, 3)):
        page = f"Page: 0\nTitle: {name}\nSnippet: {name}'s {relation} is {value}."
        call = f'print(web_search("{name}\'s {relation}"))'
        forms = (
            f"{call}\n{page}<|end|>",
            f"{page}\nWhat is {name}'s {relation}? {value}<|end|>",
            f"<|assistant|><code>{call}</code><|end|><|user|>Observation: {page}<|end|>",
            f"<|user|>Observation: {page}<|end|><|assistant|>{value}<|end|>",
        )
        parts.append(rng.choice(forms))
    return "".join(parts)


def _formula(rng: random.Random, names: list[str]) -> str:
    kind = rng.random()
    if kind < 0.2 or not names:
        return rng.choice(_DIGITS)
    if kind < 0.4 and len(names) > 1:
        return " + ".join(rng.sample(names, 2))
    return f"{rng.choice(names)} {rng.choice('+-*')} {rng.choice(_DIGITS)}"


def statements(rng: random.Random) -> str:
    """Single statements "Tura has Hene - 3 coins." and, in another order, the code line of each."""
    count = rng.randint(1, 5)
    names = rng.sample(NAMES, count + rng.randint(0, 2))
    formulas = {name: _formula(rng, [other for other in names if other != name]) for name in names[:count]}
    text = " ".join(f"{name} has {formula} coins." for name, formula in formulas.items())
    printed = rng.random() < 0.5
    order = rng.sample(names[:count], count)
    lines = [f"{name} = {formulas[name]}" + f"\nprint({name})" * printed for name in order]
    if rng.random() < 0.5:
        return f"<|user|>{text}<|end|>" + "".join(f"<|assistant|><code>{line}</code><|end|>" for line in lines)
    return "\n".join([text, *lines]) + "<|end|>"


def console(rng: random.Random) -> str:
    """Python lines and what they print."""
    runs: list[tuple[str, int]] = []
    values: dict[str, int] = {}
    for name in rng.sample(NAMES, rng.randint(1, 3)):
        formula = _formula(rng, list(values)) if values else rng.choice(_DIGITS + _NUMBERS)
        values[name] = calculate([str(values.get(word, word)) for word in formula.split()])
        runs.append((f"{name} = {formula}\nprint({name})", values[name]))
    if rng.random() < 0.5:
        a, b = rng.choice(_NUMBERS), rng.choice(_NUMBERS)
        sums = (
            (f"{a} + {b}", int(a) + int(b)),
            (f"{a} - {b}", int(a) - int(b)),
            (f"max({a}, {b})", max(int(a), int(b))),
        )
        expression, value = rng.choice(sums)
        runs.append((f"print({expression})", value))
    if rng.random() < 0.5:
        return "".join(f"<|assistant|><code>{c}</code><|end|><|user|>Observation: {v}<|end|>" for c, v in runs)
    return "\n".join(f"{code}\n{value}" for code, value in runs) + "<|end|>"


Kinds = dict[Callable[[random.Random], str], float]
COPYING: Kinds = {copied_list: 3, copied_phrases: 1, dictionary: 2}
"""Kind -> weight. What comes first: with copying learned, reading follows in a fraction of the steps."""
EVERYTHING: Kinds = {reading: 4, pages: 4, console: 2, statements: 6, copied_list: 2, copied_phrases: 1, dictionary: 2}


def document(rng: random.Random, kinds: Kinds = EVERYTHING) -> str:
    return rng.choices(list(kinds), list(kinds.values()))[0](rng)
