"""Estimates follow from counts and named assumptions: by hand, in one golden text, and as properties."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan.small import JOBS, SIZES, setting
from score.errors import ScoreError
from score.plan import show
from score.plan.assumptions import FIELDS, Assumptions, changed
from score.plan.estimate import costs, estimate, rate
from score.plan.loads import FORMULAS, TERMS, Piece, Setting, load, rows
from score.plan.questions import Questions

GOLDEN = Path(__file__).parent / "golden" / "small.txt"


def total(where: Setting, jobs=JOBS) -> dict[str, float]:
    """Everything that an estimate adds up."""
    whole = estimate(costs(jobs, where), where)
    loads = [cost.load for cost in whole.costs]
    return {
        "hours": sum(cost.gpu_hours for cost in whole.costs),
        "disk": sum(entry.size for entry in whole.disk),
        "chain": whole.chain,
        **{name: sum(getattr(one, name) for one in loads) for name in ("attempts", "searches", "sampled", "flops")},
        **{
            name: sum(getattr(ask, name) for one in loads for ask in one.asks)
            for name in ("requests", "prompt", "completion")
        },
    }


def test_what_is_printed_for_a_small_experiment():
    where = setting()
    said = list(show.paragraphs(estimate(costs(JOBS, where), where, 8, images=True), where, None))
    assert "\n\n".join(said[:7]) + "\n" == GOLDEN.read_text()
    formulas, _, assumed = said[7:]
    assert all(f" {rule} " in formulas for rule in FORMULAS if rule != "variance")
    assert all(f"| {name} " in assumed for name in FIELDS), "no number is used that is not shown"


def test_every_assumption_is_named_in_a_formula_or_says_what_it_counts():
    text = " ".join([*FORMULAS.values(), *TERMS])
    for name in ("steps", "turn_tokens", "observation_tokens", "undecided", "remaining", "train_flops", "own_sampler"):
        assert name in text
    assert all(entry.metadata["unit"] and entry.metadata["why"] for entry in FIELDS.values())


def test_the_teachers_rollouts_by_hand():
    found = load(Piece("rollout", "teacher", "cold_start"), setting())
    attempts, verdicts = found.asks
    assert (attempts.role, attempts.requests, attempts.completion) == ("teacher", 500, 200_000)
    assert attempts.prompt == 100 * (5 * 200 + 10 * 650), "each turn reads all that was before it"
    assert (verdicts.requests, verdicts.completion) == (30, 3000)
    assert found.searches == 150
    assert rate("qwen2.5_7b", setting()) == 2500
    assert rate("qwen2.5_72b", setting()) == pytest.approx(1550, rel=0.01), "on four GPUs"


def test_correction_costs_what_the_corrections_are():
    a = Assumptions()
    assert a.corrections(5) == pytest.approx(0.2 + 2 * 0.025 + 5 * 0.125)
    assert a.corrections(1) == pytest.approx(0.35)
    assert a.corrections(0) == 0
    found = load(Piece("correct", "qwen7b_bc20"), setting())
    assert found.attempts == pytest.approx(400 * 1.875)
    first, later = found.asks[:2]
    assert (first.requests, later.requests) == (400 * 5, pytest.approx(350 * 2.75)), "not the prefix nor the fix again"
    assert later.prompt == pytest.approx(350 * (2.75 * 200 + (10 - 2.25 * 1.25 / 2) * 650))
    assert found.searches == pytest.approx((400 + 350 * 0.55) * 0.5 * 3)


def test_hard_tasks_that_rules_decide_need_no_search():
    assert load(Piece("evaluate", "qwen7b_score_rl", "hard"), setting()).searches == 0


def test_training_rows_are_the_halves_of_what_was_solved():
    where = setting()
    agents = {agent.name: agent for agent in where.config.agents}
    assert rows(agents["qwen7b_bc20"], where) == 80
    assert rows(agents["qwen7b_bc"], where) == 400
    assert rows(agents["qwen7b_score_sft"], where) == pytest.approx(400 * 0.875 / 2)
    assert rows(agents["qwen7b_sft_both"], where) == pytest.approx(400 * 0.875)
    assert rows(agents["qwen7b_dpo"], where) == pytest.approx(400 * 0.225 / 2)


def test_a_short_horizon_samples_less():
    short, long = (load(Piece("grpo", name), setting()) for name in ("qwen7b_score_rl", "ablation_no_short_horizon"))
    assert [ask.role for ask in short.asks] == ["student", "reward_judge"]
    for count in ("requests", "prompt", "completion"):
        assert getattr(short.asks[0], count) < getattr(long.asks[0], count)
    assert short.searches < long.searches
    assert short.flops == long.flops
    assert short.asks[0].completion == 500 * 256 * 2000 * 0.75


def hours(rule: str, where: Setting) -> float:
    return sum(cost.hours for cost in costs(JOBS, where) if cost.job.rule == rule)


def test_a_vllm_samples_rollouts_and_the_trainer_itself_its_looks():
    slow, fast = setting(), setting(training={"grpo": {"score_rl": {"sampler": "vllm_colocate"}}})
    rollouts = 500 * 256 * 1500 / 2500 / 3600
    assert hours("grpo", slow) - hours("grpo", fast) == pytest.approx(rollouts / 0.3 - rollouts)
    own = setting(Assumptions(own={"rate.qwen2.5_7b": 2500}), training={"grpo": {"score_rl": {"gpus": 4}}})
    assert hours("grpo", own) == pytest.approx(hours("grpo", dataclasses.replace(own, assumed=Assumptions()))), (
        "four processes sample four times as much as one server"
    )


def test_looks_are_at_the_start_now_and_then_and_at_the_end():
    looks = [
        load(Piece("sft", "qwen7b_bc"), setting(training={"sft": {"cold_start": {"eval_every": n}}}))
        for n in (0, 5, 50)
    ]
    assert [look.units for look in looks] == [12, 12, 12], "three epochs of 400 rows in batches of 128"
    assert [look.sampled for look in looks] == [0, 25 * 4 * 2000, 25 * 2 * 2000]


def test_adapters_need_less_arithmetic_and_leave_no_large_checkpoints():
    lora = {"lora": {"r": 16}}
    full, less = setting(), setting(training={"grpo": {"score_rl": lora}, "dpo": {"key_step_pairs": lora}})
    work = [[load(Piece(*piece), where).flops for where in (full, less)] for piece in PIECES]
    assert [b / a for a, b in work] == pytest.approx([4 / 6, 12 / 16])
    disk = [{entry.what: entry.size for entry in estimate(costs(JOBS, where), where).disk} for where in (full, less)]
    assert disk[0]["trained models"] == disk[1]["trained models"] == 4 * 14e9
    left = "checkpoints, the last and the best"
    assert (disk[0][left], disk[1][left]) == (5 * 84e9, 2 * 84e9), "RL leaves two, SFT and DPO one"


PIECES = (("grpo", "qwen7b_score_rl"), ("dpo", "qwen7b_dpo"))


def test_a_download_is_counted_though_an_endpoint_has_the_same_path():
    remote = {"engine": "endpoint", "path": "Qwen/Qwen2.5-7B-Instruct", "url": "http://localhost:1/v1"}
    where = setting(models={"judge_7b": remote}, roles={"reward_judge": "judge_7b"})
    where = dataclasses.replace(where, parameters=SIZES | {"judge_7b": 0.0})
    assert estimate(costs(JOBS, where), where).disk[0].size == 14e9


def test_an_endpoint_takes_its_time_without_gpus():
    where = setting(models={"qwen2.5_72b": {"engine": "endpoint", "gpus": 0, "url": "http://localhost:1/v1"}})
    jobs = [dataclasses.replace(job, gpus=0) if job.rule == "rollout" else job for job in JOBS]
    found = next(cost for cost in costs(jobs, where) if cost.job.rule == "rollout")
    assert found.hours == pytest.approx((200_000 + 3000) / 1500 / 3600)
    assert found.gpu_hours == 0
    said = list(show.paragraphs(estimate(costs(jobs, where), where), where, None))
    assert "not counted: GPUs behind qwen2.5_72b, and that jobs which ask one at the same time share it" in said


def test_the_configs_limits_bound_an_attempt():
    turns = {"student": {"max_new_tokens": 24}, "evaluate": {"max_new_tokens": 24}}
    where = setting(protocol={"max_steps": 2}, sampling=turns)
    (ask,) = load(Piece("evaluate", "qwen7b", "main"), where).asks
    assert ask.requests == 8 * 20 * 3
    assert ask.completion == ask.requests * 24


def test_more_samples_of_a_benchmark_and_tries_until_it_is_answered():
    piece = Piece("evaluate", "qwen7b", "main")
    once = load(piece, setting()).attempts
    assert load(piece, setting(evaluation={"n_samples_of": {"aime24": 8}})).attempts == once + 7 * 20
    assert load(piece, setting(evaluation={"as_published": True})).attempts == once * 1.5


@pytest.mark.parametrize("search", [{"backend": "none"}, {"mode": "replay", "cache": "cache"}])
def test_nobody_is_asked_where_the_cache_answers_or_there_is_no_search(search):
    assert total(setting(search=search))["searches"] == 0
    assert total(setting())["searches"] > 0


def test_shards_are_together_the_whole():
    parts = [dataclasses.replace(Piece("correct", "qwen7b_bc20"), share=share) for share in (0.25, 0.75)]
    a, b, whole = (load(piece, setting()) for piece in (*parts, Piece("correct", "qwen7b_bc20")))
    assert a.attempts + b.attempts == pytest.approx(whole.attempts)
    assert a.asks[1].prompt + b.asks[1].prompt == pytest.approx(whole.asks[1].prompt)


def test_what_a_killed_job_left_done_is_not_counted_again():
    where, place = setting(), next(i for i, job in enumerate(JOBS) if job.rule == "grpo")
    fresh, half, over = (costs(JOBS, where, done)[place] for done in ({}, {place: 250}, {place: 10**6}))
    assert half.load.sampled == fresh.load.sampled / 2
    assert over.load.sampled == 0
    assert over.hours == pytest.approx(300 / 3600), "it still starts"


def test_a_model_of_unknown_size_is_asked_for():
    where = dataclasses.replace(setting(), parameters=SIZES | {"qwen3_8b": None})
    with pytest.raises(ScoreError, match=r"models\.qwen3_8b: .*--assume parameters\.qwen3_8b=7e9"):
        costs(JOBS, where)
    assert costs(JOBS[:3], where), "it is not in these jobs"


def test_too_few_gpus_are_refused():
    where = setting()
    with pytest.raises(ScoreError, match="--gpus 4: correct qwen7b_bc20 takes 5"):
        estimate(costs(JOBS, where), where, 4)
    assert estimate(costs(JOBS, where), where).gpus == 5


def test_jobs_without_gpus_ask_for_tokens_and_no_gpu_hours():
    where = setting()
    jobs = [dataclasses.replace(job, gpus=0) for job in JOBS]
    assert total(where, jobs)["completion"] == total(where)["completion"]
    assert total(where, jobs)["hours"] == 0
    assert "not estimated" in show.wall(estimate(costs(jobs, where), where))


def test_what_is_advised_to_a_job_that_is_too_long_can_be_done():
    where = setting(Assumptions(start_s=86_400))
    advice = {line.split(":")[0]: line for line in show.late(costs(JOBS, where))}
    assert "more shards" in advice["evaluate"]
    assert "more GPUs" in advice["sft"]
    assert "Give it --set-resources judge:runtime=" in advice["judge"], "a judge has no shards"


def test_numbers_have_as_many_digits_as_an_estimate():
    assert [show.number(n) for n in (0, 0.123, 9.96, 99.6, 1234.5, 1_234_567)] == [
        "0",
        "0.12",
        "10",
        "100",
        "1,234",
        "1,230,000",
    ]


def test_nothing_to_do_costs_nothing():
    assert set(total(setting(), []).values()) == {0}
    said = list(show.paragraphs(estimate([], setting()), setting(), None))
    assert "nothing to pay for" in said[-1]


counts = st.integers(0, 10**5)
questions = st.builds(Questions, counts, counts, counts, st.just(0.5), st.just(0.25), st.just("drawn"))
GROWING = [name for name, entry in FIELDS.items() if entry.metadata["unit"] not in ("share", "tokens/s", "FLOP/s")]


def grows(less: dict[str, float], more: dict[str, float]) -> bool:
    return all(more[name] >= less[name] * (1 - 1e-9) for name in less)


@given(questions, st.tuples(counts, counts, counts))
def test_more_questions_never_cost_less(few, added):
    many = dataclasses.replace(
        few,
        cold_start=few.cold_start + added[0],
        mentored=few.mentored + added[1],
        held_out=few.held_out + added[2],
    )
    assert grows(total(setting(questions=few)), total(setting(questions=many)))


@given(st.sampled_from(GROWING), st.floats(1, 10))
def test_larger_counts_never_cost_less(name, factor):
    base = Assumptions()
    assert grows(
        total(setting(base)), total(setting(dataclasses.replace(base, **{name: getattr(base, name) * factor})))
    )


@given(st.lists(st.sampled_from(JOBS)), st.sampled_from(JOBS))
def test_another_job_never_makes_it_cheaper(jobs, another):
    assert grows(total(setting(), jobs), total(setting(), [*jobs, another]))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("setps=3", "unknown name; did you mean 'steps'?"),
        ("parameters.qwen=7e9", "unknown name; did you mean"),
        ("steps", "expected name=number, such as steps=100"),
        ("steps=many", "expected name=number"),
        ("steps=-1", "not negative"),
        ("steps=nan", "not negative"),
        ("undecided=1.5", "a share is at most 1"),
        ("server_rate=0", "a rate of 0 never ends"),
        ("rate.qwen2.5_7b=0", "a rate of 0 never ends"),
        ("solved_after_one=0.9", "more than 1 together"),
    ],
)
def test_assumptions_that_make_no_sense_end_with_one_line(word, message):
    names = {"parameters": list(SIZES), "rate": list(SIZES)}
    with pytest.raises(ScoreError, match="--assume") as raised:
        changed(Assumptions(), [word], names)
    assert message in str(raised.value)


def test_assumptions_are_given_by_name():
    found = changed(Assumptions(), ["steps=3", "rate.qwen2.5_7b=9000"], {"rate": list(SIZES)})
    assert found.steps == 3
    assert rate("qwen2.5_7b", setting(found)) == 9000
