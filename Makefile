# Every target builds .venv if it is missing or the lock has changed.
PYTHON ?= python3.11
BIN := .venv/bin
TORCH := torch==2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo real test unit training contract parity pipeline test-cluster chaos crash-points fuzz simulate soak lint docs clean

# The whole method on this machine: makes the miniature, runs all stages, leaves everything in runs/quickstart.
demo: .venv/ready
	$(BIN)/rlaif run configs/quickstart.yaml

# The whole method on a real model of 135 million parameters and real prompts, in runs/small_real. The prompts are those
# of the hub, or public files next to this directory.
DATA := ../shared/data
REAL_DATA = 'data.red_team=$(DATA)/strongreject.csv\#64' 'data.helpful=$(DATA)/llmbar_pairs.jsonl\#48' \
  'data.helpful_pairs=$(DATA)/llmbar_pairs.jsonl' \
  'evaluation.red_team=$(DATA)/simple_safety_tests.csv\#24' 'evaluation.helpful=$(DATA)/xstest_prompts.csv\#24' \
  'evaluation.suites.xstest=$(DATA)/xstest_prompts.csv\#32'
real: .venv/ready
	$(BIN)/python -m rlaif.small_model.make
	$(BIN)/rlaif run configs/small_real.yaml $(if $(wildcard $(DATA)),$(REAL_DATA))

# Unit, contract, parity, pipeline and single-host Ray tests, including vLLM and DeepSpeed. Each suite has a process of
# its own: when its last engine closes, vLLM destroys torch's process groups, which DeepSpeed's ranks still need. The
# quick suites run in parallel, the longest first, with one thread each (threads that wait for a core spin), and share
# the miniature. The tests of the real model and of Ray have the machine to themselves: one needs both cores, the other
# waits for processes.
QUICK := unit pipeline training parity contract
test: .venv/ready
	$(BIN)/python -m rlaif.miniature.make
	failed=""; \
	OMP_NUM_THREADS=1 $(MAKE) --jobs=2 --keep-going --output-sync=target $(QUICK) || failed=yes; \
	$(BIN)/python -m pytest tests/real_model || failed=yes; \
	$(BIN)/python -m pytest tests/cluster || failed=yes; \
	$(BIN)/python -m pytest tests/fake_gpus || failed=yes; \
	test -z "$$failed"

unit: SUITE := tests/unit --ignore=tests/unit/training
training: SUITE := tests/unit/training
$(QUICK): .venv/ready
	$(BIN)/python -m pytest $(or $(SUITE),tests/$@)

# A real cluster of two hosts on this machine (needs root, for network namespaces): submit, stop, a cut link.
test-cluster: .venv/ready
	$(BIN)/python -m pytest tests/two_hosts

# Long: the driver is killed twenty times over scripted actors; an actor of a real run is killed every 20 seconds.
chaos: .venv/ready
	$(BIN)/python -m pytest tests/chaos
	$(BIN)/python -m benchmarks.chaos

# Long: a small run is stopped at every one of its durable writes, as by a power failure, and resumed; each of its files
# is damaged in every way.
crash-points: .venv/ready
	RLAIF_ALL_CRASH_POINTS=1 $(BIN)/python -m pytest -s tests/pipeline/test_crash_points.py tests/pipeline/test_damaged_files.py

# Long: 120,000 generated files through every reader of data, 204,000 inputs through everything else that reads.
fuzz: .venv/ready
	$(BIN)/python -m pytest -s tests/fuzz

# Long: 100,000 schedules each of pools, orders and trainers in a simulated cluster.
simulate: .venv/ready
	NUM_SCHEDULES=100000 $(BIN)/python -m pytest tests/unit/actors/simulation/test_schedules.py

# Long: does memory grow over 10,000 steps of reinforcement?
soak: .venv/ready
	$(BIN)/python -m benchmarks.soak

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site, site/index.html. Fetches nothing; a broken link or anchor is an error. Always reads every
# page (-E), because parts of the pages are generated from the code.
docs: .venv/ready
	$(BIN)/sphinx-build -q -n -W --keep-going -E -c docs . site

# torch comes first and alone: its CPU build is on some machines' own index; elsewhere it is on the PyTorch project's,
# which is used only for torch, because pip retries an unreachable extra index for every package.
# --no-deps: the lock is complete, and omits the CUDA builds of torchvision and torchaudio that break a CPU torch.
.venv/ready: requirements/cpu.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps "$(TORCH)" \
	  || $(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) "$(TORCH)"
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/cpu.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv runs site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
