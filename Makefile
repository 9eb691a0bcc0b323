# make demo: train, evaluate, export and ask a KANet, on embedded pictures.
# make test: lint and run the tests, on TensorFlow and on JAX.
# make bench: the tables of benchmarks/, half an hour on two quiet cores.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# What depends on no backend, and is tested once.
NUMPY := tests/ylg/test_information_flow.py tests/ylg/test_patterns.py \
	tests/ylg/test_superconcentrator.py tests/ylg/test_visualize.py

# What does not depend on TensorFlow, and is tested on JAX, too.
NEUTRAL := tests/test_ops.py tests/layers tests/nets tests/optimizers \
	tests/zoo tests/evaluation tests/test_augment.py tests/test_losses.py \
	tests/test_recipes.py tests/test_saved.py \
	tests/test_segmentation_recipes.py \
	tests/test_tensorflow_addons.py tests/test_visualize.py \
	$(filter-out $(NUMPY), $(wildcard tests/ylg/test_*.py))

# A file stays with one worker, as what it makes once is dear.
WORKERS := -n 2 --dist loadfile

# JAX compiles every initializer for every shape; once is enough.
JAX_CACHE := JAX_COMPILATION_CACHE_DIR=$(abspath $(VENV))/jax \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

# TensorFlow's start-up messages are of no use here.
export TF_CPP_MIN_LOG_LEVEL ?= 2

# What `make bench` asks, a script a question; the last one sums up.
QUESTIONS := kronecker ylg_attention nets training startup report

.PHONY: demo test lint slow bench clean

demo: $(VENV)/demo.stamp
	KERAS_BACKEND=tensorflow $(BIN)/kanets demo --to runs/demo

test: lint
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest $(WORKERS)
	$(JAX_CACHE) KERAS_BACKEND=jax $(BIN)/python -m pytest $(WORKERS) $(NEUTRAL)

bench: $(VENV)/bench.stamp
	set -e; for question in $(QUESTIONS); do \
		$(BIN)/python benchmarks/$$question.py; done

slow: $(VENV)/test.stamp
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -m slow

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/demo.stamp: setup.py | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/test.stamp: setup.py | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/bench.stamp: setup.py | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[bench]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) runs/demo build dist *.egg-info
