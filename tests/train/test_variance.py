"""The measured variance of the policy gradient: its formula, its gradients, and what it is measured on."""

import csv
import io

import pytest
import torch

from fakes import LocalPool
from score.agent.episode import Episode, forced_prefix
from score.agent.protocol import Message, plan_text, step_text
from score.config.schema import Protocol
from score.engine.base import Completion
from score.records import Step, StopReason, Task, Trajectory
from score.train.variance import Spread, chosen_tasks, score_function, spread_of, to_csv


def test_the_variance_is_the_trace_of_the_covariance():
    gradients = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    variance, with_baseline, norm2 = spread_of(gradients, torch.tensor([1.0, 1.0]))
    assert variance == pytest.approx(2.0 + 2.0)
    assert with_baseline == 0, "equal returns have no advantage"
    assert norm2 == pytest.approx(2.0**2 + 1.0**2)


def test_a_return_of_nothing_has_a_gradient_of_nothing():
    gradients = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    assert spread_of(gradients, torch.zeros(2)) == (0.0, 0.0, 0.0)


def test_the_gradient_is_that_of_the_sampled_tokens_alone(random_student):
    model, codec = random_student
    task = Task("t", "How many coins has Ba?", ("5",), "toy", {"metric": "exact"})
    step = Step("Find Ba", "print(4)", "4", text=step_text("Find Ba", "print(4)"))
    forced = forced_prefix(Message("assistant", plan_text("Plan: 1")), (step,))
    episode = Episode(task, Protocol(max_steps=3), seed=0, forced=forced)
    with LocalPool().open({}) as session:
        while (given := episode.next_forced()) is not None:
            code = episode.take(given)
            if code is not None:
                episode.observe(session.run(code))
        answer = step_text("Answer", "final_answer_print(5)")
        ids = tuple(codec.tokenizer.encode(answer))
        episode.observe(session.run(episode.take(Completion(answer, "stop", ids))))
    assert episode.stop == StopReason.ANSWERED
    gradient = score_function(model, codec, episode, given=len(forced))

    prompt = codec.prompt(episode.conversation()[:5])
    model.zero_grad()
    sequence = torch.tensor([[*prompt, *ids, codec.eos_id]])
    log_probs = model(input_ids=sequence).logits[0].log_softmax(-1)
    positions = range(len(prompt), sequence.shape[1])
    sum(log_probs[i - 1, sequence[0, i]] for i in positions).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    assert torch.allclose(gradient, expected, atol=1e-5)


def test_the_longest_trajectories_are_measured_in_an_order_of_their_own():
    def trajectory(name, steps):
        made = tuple(Step("", "") for _ in range(steps))
        return Trajectory(Task(name, name, ("5",), "toy"), "p", made, StopReason.ANSWERED)

    given = [trajectory("a", 3), trajectory("b", 9), trajectory("c", 9), trajectory("d", 5)]
    assert {t.task.id for t in chosen_tasks(given, 2)} == {"b", "c"}
    assert chosen_tasks(given, 3) == chosen_tasks(given[::-1], 3)


def test_the_file_has_a_row_per_task_and_prefix():
    spread = Spread("a", 0, "t", 2, 6, 16, 0.5, 3.0, 2.0, 0.1)
    (row,) = csv.DictReader(io.StringIO(to_csv([spread])))
    assert (row["prefix"], row["remaining"], row["variance"]) == ("2", "6", "3.0")
