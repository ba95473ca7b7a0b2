"""Published teacher trajectories as demonstrations: a seeded subset of at most so many tokens.

    python -m score.data.demonstrations --raw raw/BC_init_math.json --tokenizer models/smollm2-135m-instruct \
        --max-tokens 100000 --seed 0 --exclude data/*.jsonl --out rollout/teacher/cold_start.jsonl

Trajectories whose question is a test question of the `--exclude` task files are dropped and counted. Tokens are counted
in the tokenizer's chat template, as training will see them. The file holds only what the published judge found right.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from score import cli
from score.agent.protocol import trajectory_messages
from score.data.contamination import find_contamination
from score.data.published import from_conversation
from score.errors import ScoreError
from score.jsonl import write_rows
from score.records import Trajectory, content_key
from score.tasks import read_tasks

log = logging.getLogger("demonstrations")


def read_demonstrations(path: Path) -> list[Trajectory]:
    """All trajectories of a published conversation file. Raises `ScoreError` naming the file and the record."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScoreError(f"{path}: not a JSON list of conversations ({error})") from None
    try:
        trajectories = [from_conversation(record, index, path.stem) for index, record in enumerate(records)]
    except ScoreError as error:
        raise ScoreError(f"{path}: {error}") from None
    return [dataclasses.replace(t, meta=t.meta | {"right": True}) for t in trajectories]


def within_budget(
    trajectories: Sequence[Trajectory], count_tokens: Callable[[Trajectory], int], max_tokens: int, seed: int
) -> tuple[list[Trajectory], int]:
    """Trajectories in an order drawn by seed and question, up to the first that exceeds the budget; and their tokens.

    Stopping there, instead of filling the rest with short ones, keeps the subset unbiased in length.
    """
    chosen, total = [], 0
    for trajectory in sorted(trajectories, key=lambda t: content_key("demonstrations", seed, t.task.id)):
        n_tokens = count_tokens(trajectory)
        if total + n_tokens > max_tokens:
            break
        chosen.append(trajectory)
        total += n_tokens
    return chosen, total


def token_counter(folder: str, revision: str | None = None) -> Callable[[Trajectory], int]:
    """Counts a trajectory's tokens with the tokenizer and chat template of a model folder or hub name."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision)

    def count(trajectory: Trajectory) -> int:
        chat = [message.chat() for message in trajectory_messages(trajectory)]
        return len(tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False).input_ids)

    return count


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make demonstrations from a published trajectory file.")
    parser.add_argument("--raw", required=True, type=Path, help="the published file, as fetched")
    parser.add_argument("--tokenizer", required=True, help="model folder or hub name of the student")
    parser.add_argument("--revision", help="of the hub name")
    parser.add_argument("--max-tokens", required=True, type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--near", type=float, help="share of n-grams that makes a question nearly a test question")
    parser.add_argument("--exclude", type=Path, nargs="*", default=[], help="task files of benchmarks")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    trajectories = read_demonstrations(args.raw)
    tests = {path.stem: read_tasks(path) for path in args.exclude}
    dropped = find_contamination([trajectory.task for trajectory in trajectories], tests, args.near).dropped
    clean = [trajectory for trajectory in trajectories if trajectory.task.id not in dropped]
    chosen, n_tokens = within_budget(clean, token_counter(args.tokenizer, args.revision), args.max_tokens, args.seed)
    if not chosen:
        raise ScoreError(f"{args.raw}: no demonstration fits into {args.max_tokens} tokens; raise --max-tokens")
    write_rows(args.out, (trajectory.to_json() for trajectory in chosen))
    log.info(
        "%s: %d of %d trajectories, %d tokens; %d dropped as test questions",
        *(args.out, len(chosen), len(trajectories), n_tokens, len(trajectories) - len(clean)),
    )


if __name__ == "__main__":
    cli.run(main)
