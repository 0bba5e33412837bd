# `make` prints the targets. Everything installs into .venv first, once; with PYTHON=python3.13
# into .venv-python3.13, for what was installed by one Python is of no use to another.
PYTHON ?= python3
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# What the command needs, and what the tests need as well.
RUNS := $(VENV)/.runs
INSTALLED := $(VENV)/.installed

.PHONY: help demo check engines check-engines test test-slow fuzz lint docs wheel parity gpu gpu-wheels tpu readme clean
help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

# Not compiled to bytecode, which would be an eighth of it: Python does that for what it imports,
# unless it is told not to keep it, and then each process of the tests imports jax for 2 s longer.
unexport PYTHONDONTWRITEBYTECODE
$(RUNS): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@touch $@

$(INSTALLED): $(RUNS)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

demo: $(RUNS) ## name emoji that the bundled model has never seen
	$(BIN)/siglip-jax demo

check: lint test-slow docs wheel ## everything that CI runs; PYTHON=python3.13 by another Python

test: $(INSTALLED) ## the tests but for the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(INSTALLED) ## all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Apart: they hold Pillow, pyarrow, protobuf and ml_dtypes at earlier versions.
ENGINES := $(VENV)-engines
engines: $(ENGINES)/.installed
$(ENGINES)/.installed: pyproject.toml
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --upgrade pip
	$(ENGINES)/bin/python -m pip install --quiet --editable ".[dev,engines]"
	@touch $@

check-engines: engines ## Ray, Spark, Beam and Triton's client, in an environment of their own
	$(ENGINES)/bin/python -m pytest tests/batch/test_engines.py tests/jobs/test_ray.py \
	  tests/serve/test_ray.py tests/serve/test_clients.py

FUZZ_CASES ?= 10000
FUZZ_SECONDS ?= 3600
fuzz: $(INSTALLED) ## every format damaged in 10,000 ways, and 2,000 requests; FUZZ_CASES=N, FUZZ_SECONDS=N
	FUZZ_CASES=$(FUZZ_CASES) FUZZ_SECONDS=$(FUZZ_SECONDS) \
	  $(BIN)/python -m pytest -n 2 --dist worksteal -rP tests/fuzz tests/serve/test_schemathesis.py

lint: $(INSTALLED) ## ruff: rules and format; pyright: types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python tests/support/check_types.py

docs: $(INSTALLED) ## build the site into docs/_build/html, executing its examples
	$(BIN)/python -m pip install --quiet --editable ".[dev,docs]"
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

wheel: $(INSTALLED) ## build the wheel, install it elsewhere, run the command from there
	PYTHON=$(BIN)/python tests/wheel.sh

parity: $(INSTALLED) ## compare with the live libraries; BIG_VISION=path/to/checkout adds big_vision
	$(BIN)/python -m pip install --quiet --editable ".[dev,parity]"
	@# A process each, because TensorFlow and PyTorch do not load in any order.
	for file in tests/parity/test_*.py; do \
	  PYTHONPATH=$(BIG_VISION) $(BIN)/python -m pytest $$file || exit 1; done

OUT ?= runs/gpu
gpu: $(INSTALLED) ## everything that only a GPU can tell, in 8 minutes; REHEARSE=1 on a CPU
	$(if $(REHEARSE),,$(BIN)/python -m pip install --quiet --editable ".[dev,cuda13]")
	$(BIN)/python benchmarks/gpu $(OUT) $(if $(REHEARSE),--rehearse)

gpu-wheels: $(INSTALLED) ## wheels for a GPU machine without a network, and their size
	$(BIN)/python benchmarks/gpu/carry.py

tpu: $(INSTALLED) ## the same on a TPU VM; REHEARSE=1 on a CPU
	$(if $(REHEARSE),,$(BIN)/python -m pip install --quiet --editable ".[dev,tpu]")
	$(BIN)/python benchmarks/gpu $(OUT) --tpu --minutes 30 $(if $(REHEARSE),--rehearse)

readme: $(INSTALLED) ## write the table of checkpoints and the map of modules
	$(BIN)/python tests/support/checkpoint_table.py
	$(BIN)/python tests/support/module_map.py

clean: ## remove .venv and what was built
	rm -rf .venv .venv-* build dist docs/_build docs/notebooks *.egg-info .pytest_cache .ruff_cache .hypothesis
