# Every target builds .venv when it is missing or when the lock changed.
PYTHON ?= python3.11
BIN := .venv/bin
TORCH := torch==2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo test unit contract parity pipeline test-cluster chaos soak lint clean

# The whole method on this machine: make the miniature, run all stages, leave everything in runs/quickstart.
demo: .venv/ready
	$(BIN)/rlaif run configs/quickstart.yaml

# Unit, contract, parity, pipeline and single-host Ray tests, vLLM and DeepSpeed included. A process for each suite:
# vLLM takes torch's process groups down with it when its last engine closes, which DeepSpeed's ranks would miss.
# The quick ones run side by side on one core each (threads that wait for a core spin) and share the miniature. The Ray
# tests have the machine to themselves, because they wait for real processes.
QUICK := unit contract parity pipeline
test: .venv/ready
	$(BIN)/python -m rlaif.miniature.make
	failed=""; \
	OMP_NUM_THREADS=1 $(MAKE) --jobs=2 --keep-going --output-sync=target $(QUICK) || failed=yes; \
	$(BIN)/python -m pytest tests/cluster || failed=yes; \
	test -z "$$failed"

$(QUICK): .venv/ready
	$(BIN)/python -m pytest tests/$@

# A real cluster of two hosts on this machine (network namespaces, so it needs root): submit, stop, a cut link.
test-cluster: .venv/ready
	$(BIN)/python -m pytest tests/two_hosts

# Long: the driver killed twenty times over scripted actors; an actor of a real run killed every 20 seconds.
chaos: .venv/ready
	$(BIN)/python -m pytest tests/chaos
	$(BIN)/python -m benchmarks.chaos

# Long: 10,000 steps of reinforcement, and what they leave in memory.
soak: .venv/ready
	$(BIN)/python -m benchmarks.soak

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# torch comes first and alone: its CPU build is on some machines' own index; elsewhere it is on the PyTorch project's,
# asked for torch only because an extra index that cannot be reached is tried again for every package.
# --no-deps: the lock is complete, and leaves out CUDA builds of torchvision and torchaudio that break a CPU torch.
.venv/ready: requirements/cpu.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps "$(TORCH)" \
	  || $(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) "$(TORCH)"
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
