"""The episode: a pure state machine over the chat protocol. It does no I/O; a driver feeds it.

    while not episode.stop:
        forced = episode.next_forced()                 # a turn that is given, or None
        code = episode.take(forced or engine(...))     # None: nothing to run in this turn
        if code is not None:
            episode.observe(sandbox(code))

Forced turns are how an episode resumes: the verified prefix and the teacher's correction are fed through the same
transitions as sampled turns. Their code is executed, or `replay`ed in a session that is in the state that they led to,
so the state before the next sampled step is the true one (the published code keeps the discarded step's variables;
hazard 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from score.agent import protocol
from score.agent.protocol import Message
from score.config.schema import Protocol as Limits
from score.engine.base import Completion
from score.errors import InfrastructureError
from score.records import Step, StopReason, Task, Trajectory
from score.sandbox.base import Observation


class ReplayMismatch(InfrastructureError):
    """A verified prefix, executed again, printed something else than it did when it was recorded."""


@dataclass(frozen=True)
class Forced:
    """A given assistant turn. `observation` is what its code must print; None where that is not known yet."""

    message: Message
    observation: str | None = None


def forced_prefix(plan: Message | None, steps: Sequence[Step]) -> tuple[Forced, ...]:
    """A plan and the executed steps after it as forced turns."""
    if plan is None:
        return ()
    return (Forced(plan), *(Forced(protocol.step_message(step), step.observation) for step in steps))


class Episode:
    """One attempt at one task. `stop` is None while it runs; `trajectory()` is its record at any time."""

    def __init__(
        self, task: Task, limits: Limits, *, seed: int, forced: Sequence[Forced] = (), system: str | None = None
    ) -> None:
        self.task, self.limits, self.seed, self.system = task, limits, seed, system
        self.stop: StopReason | None = None
        self.plan: Message | None = None
        self.plan_logprobs: tuple[float, ...] | None = None
        self.steps: list[Step] = []
        self.observations: list[Observation | None] = []  # of each step; None where no code was run
        self.answer: str | None = None
        self.failure: str | None = None
        self.unfinished: set[int] = set()  # turns cut by the token limit: their end token was never sampled
        self._forced = list(forced)
        self._malformed = 0
        self._tokens = {"prompt": 0, "completion": 0, "calls": 0}
        self._tool_calls: dict[str, int] = {}

    @property
    def turn(self) -> int:
        """Index of the turn that comes next: 0 is the plan, 1 the first step."""
        return 0 if self.plan is None else len(self.steps) + 1

    def conversation(self) -> tuple[Message, ...]:
        """The prompt of the next turn."""
        steps = tuple(self.steps)
        return tuple(
            protocol.messages(
                self.task.question, self.plan, steps, system=self.system, final_observation=self.plan is not None
            )
        )

    @property
    def forced(self) -> tuple[Forced, ...]:
        """The given turns that are still to be played."""
        return tuple(self._forced)

    def replay(self, observations: Sequence[Observation | None]) -> None:
        """Plays the given plan and the given steps after it with what they printed before; nothing is executed."""
        self.take(self.next_forced())
        for observation in observations:
            if self.take(self.next_forced()) is not None:
                self.observe(observation)

    def next_forced(self) -> Completion | None:
        """The next given turn as a completion, or None once the episode is free to sample."""
        if not self._forced:
            return None
        message = self._forced[0].message
        return Completion(message.content, "stop", message.token_ids)

    def take(self, completion: Completion) -> str | None:
        """Takes one turn. Returns the code to run, or None if this turn runs none."""
        self._tokens["prompt"] += completion.prompt_tokens
        self._tokens["completion"] += completion.completion_tokens
        self._tokens["calls"] += completion.prompt_tokens > 0
        if completion.finish == "context":
            self.stop = StopReason.CONTEXT_OVERFLOW
            return None
        if completion.finish == "length":
            self.unfinished.add(self.turn)
        if self.plan is None:
            self._take_plan(completion)
            return None
        return self._take_step(completion)

    def _take_plan(self, completion: Completion) -> None:
        self.plan = Message("assistant", completion.text, completion.token_ids)
        self.plan_logprobs = completion.logprobs
        self._malformed = int(protocol.parse_plan(completion.text) is None)
        if self._forced:
            self._forced.pop(0)
        if self._malformed >= self.limits.max_malformed:
            self.stop = StopReason.PARSE_ERROR

    def _take_step(self, completion: Completion) -> str | None:
        parsed = protocol.parse_step(completion.text)
        thought, code = parsed or ("", "")
        ids, logprobs = completion.token_ids, completion.logprobs
        self.steps.append(Step(thought, code, text=completion.text, token_ids=ids, logprobs=logprobs))
        if parsed is not None:
            self._malformed = 0
            return code
        self._malformed += 1
        error = "truncated" if completion.finish == "length" else "parse_error"
        self.observations.append(None)
        self._close_step(protocol.STEP_HELP, error)
        if self.stop is None and self._malformed >= self.limits.max_malformed:
            self.stop = StopReason.PARSE_ERROR
        return None

    def observe(self, observation: Observation) -> None:
        """Takes what the code of the last turn printed. Raises `ReplayMismatch` where a forced turn prints
        otherwise."""
        self.observations.append(observation)
        for name, count in observation.calls:
            self._tool_calls[name] = self._tool_calls.get(name, 0) + count
        self.steps[-1] = replace(self.steps[-1], seconds=round(observation.seconds, 4))
        if observation.answer is not None:
            self.answer, self.stop = observation.answer, StopReason.ANSWERED
        cut = len(self.steps) in self.unfinished
        self._close_step(observation.text, observation.error or ("truncated" if cut else None))

    def _close_step(self, text: str, error: str | None) -> None:
        self.steps[-1] = replace(self.steps[-1], observation=text, error=error)
        if self._forced:
            expected = self._forced.pop(0).observation
            if expected is not None and expected != text:
                raise ReplayMismatch(
                    f"step {len(self.steps)} of task {self.task.id} printed {text!r}, recorded {expected!r}"
                )
        if self.stop is None and len(self.steps) >= self.limits.max_steps:
            self.stop = StopReason.MAX_STEPS

    def fail(self, error: InfrastructureError) -> None:
        """Ends the episode without an outcome."""
        self.stop, self.failure = StopReason.INFRASTRUCTURE_ERROR, f"{type(error).__name__}: {error}"

    def trajectory(self, **meta: object) -> Trajectory:
        """The episode's record. `meta` adds provenance."""
        if self.stop is None:
            raise ValueError("the episode has not ended")
        notes = {"seed": self.seed, "tool_calls": self._tool_calls, **meta}
        if self.failure is not None:
            notes["failure"] = self.failure
        plan = self.plan and protocol.parse_plan(self.plan.content)
        return Trajectory(
            task=self.task,
            plan=plan,
            plan_text=self.plan and self.plan.content,
            plan_token_ids=self.plan and self.plan.token_ids,
            plan_logprobs=self.plan_logprobs,
            steps=tuple(self.steps),
            stop=self.stop,
            answer=self.answer,
            tokens=dict(self._tokens),
            meta=notes,
        )
