from hypothesis import given
from hypothesis import strategies as st

from score.agent import protocol
from score.records import Step

free_text = st.text(st.characters(codec="utf-8", exclude_characters="<>")).filter(lambda text: "\r" not in text)


@given(free_text, free_text)
def test_a_rendered_step_parses_back(thought, code):
    assert protocol.parse_step(protocol.step_text(thought, code)) == (thought, code)


@given(free_text)
def test_a_rendered_plan_parses_back(plan):
    assert protocol.parse_plan(protocol.plan_text(plan)) == plan


def test_the_first_code_block_counts_and_nothing_is_greedy():
    assert protocol.parse_step("<thought>a</thought><code>1</code> and <code>2</code>") == ("a", "1")


def test_unclosed_blocks_are_malformed():
    assert protocol.parse_step("<thought>a</thought><code>print(1)") is None
    assert protocol.parse_plan("<first_thought>a") is None


def test_conversation_has_the_published_shape():
    steps = (Step("t1", "print(2)", "2"), Step("t2", "final_answer_print(2)", "2"))
    shown = [(m.role, m.content) for m in protocol.messages("What?", "Plan.", steps)]
    assert shown == [
        ("user", "What?"),
        ("assistant", "<first_thought>Plan.</first_thought>"),
        ("user", "Observation: None"),
        ("assistant", "<thought>t1</thought><code>print(2)</code>"),
        ("user", "Observation: 2"),
        ("assistant", "<thought>t2</thought><code>final_answer_print(2)</code>"),
    ]


def test_code_that_prints_nothing_reads_none():
    assert protocol.observation_text("") == "Observation: None"
