"""Does a correction hold the gold answer although nothing before it does?"""

import pytest

from score.correct.leaks import given_away
from score.records import Step, StopReason, Task, Trajectory


def leaks(text, *golds, question="How many?", plan="count", steps=(), k=2):
    task = Task("t", question, golds, "toy")
    attempt = Trajectory(
        task, plan, tuple(steps), StopReason.MAX_STEPS, plan_text=f"<first_thought>{plan}</first_thought>"
    )
    return given_away(attempt, k, text)


SEEN = Step("look", "print(web_search('x'))", "It was 1,250 in Paris, France.")


@pytest.mark.parametrize(
    ("text", "gold", "leak"),
    [
        ("final_answer_print(77)", "77", True),
        ("x = 77\nprint(x)", "77", True),
        ("it is 77.", "77", True),
        ("x = 177", "77", False),
        ("x = 77.5", "77", False),
        ("x = 0.77", "77", False),
        ("x77 = 1", "77", False),
        ("x = 1250", "1,250", True),
        ("x = '1,250'", "1250", True),
        (r"final_answer_print(r'\boxed{\frac{1}{2}}')", r"\boxed{\frac{1}{2}}", True),
        (r"final_answer_print(r'\boxed{7}')", "7", True),
        ("x = 7", r"$\boxed{\text{7}}$", True),
        ("he was born in PARIS", "Paris", True),
        ("parisian", "Paris", False),
        ("答案是北京。", "北京", True),
        ("x = -5", "-5", True),
        ("x = 3-5", "-5", False),
        ("g(2, 3)", "(2, 3)", False),
        ("print((2, 3))", "(2, 3)", True),
        ("anything", "", False),
        ("x = 0.5", "1/2", False),
    ],
)
def test_a_gold_answer_is_found_as_words_or_as_a_number(text, gold, leak):
    assert leaks(text, gold) is leak


def test_any_alias_counts_on_both_sides():
    assert leaks("print('USA')", "United States", "USA")
    assert not leaks("print('USA')", "United States", "USA", question="Is it the United States?")


@pytest.mark.parametrize(
    "known",
    [
        {"question": "Was it 1250?"},
        {"plan": "show that it is 1250"},
        {"steps": [SEEN]},
        {"steps": [Step("I think 1250", "x = 1")]},
        {"steps": [Step("", "x = 1250", "")]},
    ],
)
def test_what_the_student_had_is_no_leak(known):
    """The teacher's own answering step, which repeats an observed value, gives nothing away."""
    assert leaks("final_answer_print(1250)", "1250")
    assert not leaks("final_answer_print(1250)", "1250", **known)


def test_only_what_stands_before_the_turn_counts():
    assert leaks("final_answer_print(1250)", "1250", steps=[SEEN], k=1), "turn 1 was not seen by a new turn 1"
    assert leaks("1250", "1250", plan="1250", k=0), "nor the plan by a new plan"
