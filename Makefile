# make demo: train, evaluate, export and ask a KANet, on embedded pictures.
# make test: lint, and the tests of what a change can break, on TensorFlow and
#     on JAX.
# make test-torch: those of them on PyTorch that differ from backend to backend.
# make test-all: all tests on TensorFlow but the slow ones, more of them on JAX,
#     PyTorch, and the lowest Keras.
# make test-app: the page of `kanets app`, with Gradio; with KANETS_CHROMIUM, the
#     path of a browser, by clicks.
# make test-serve: `kanets serve`, with KServe.
# make test-beam: `kanets predict-many`, with Apache Beam; videos, with OpenCV.
# make test-ray: the scripts of Ray; loaders of Grain, of ArrayRecord, too.
# make test-bounds: what is nearest to Keras, on the lowest version of it and on
#     the first and last Python of setup.py, where they are there.
# make slow: the tests that take minutes, and all of JAX's.
# make bench: the tables of benchmarks/, half an hour on two quiet cores.
# make docs: the site, in build/site; it runs the examples.
# make links: whether the outside links of all pages lead somewhere; it needs a
#     network, and fails without.
# make test-wandb: a run's log for Weights & Biases, with its package, offline.
# make wheel: what is published, in dist/, tried in an environment of its own.
# make test-wheel: the wheel, and its server and page in that environment.
# make release: a wheel, and the tag of its version, to push.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# What depends on no backend, and is tested once.
NUMPY := tests/attention/test_checks.py tests/attention/test_patterns.py \
	tests/attention/test_superconcentrator.py tests/attention/test_table.py \
	tests/ylg/test_information_flow.py tests/ylg/test_sampling.py \
	tests/ylg/test_visualize.py

# What does not depend on TensorFlow: all that `make slow` tests on JAX.
NEUTRAL := tests/layers tests/nets tests/optimizers tests/quantization tests/zoo \
	tests/evaluation tests/test_augment.py tests/test_captioner.py \
	tests/test_compat.py \
	tests/test_distillation.py tests/test_losses.py tests/test_pruning.py \
	tests/test_recipes.py \
	tests/test_saved.py tests/test_segmentation_recipes.py \
	tests/test_explanations.py tests/test_tensorflow_addons.py \
	tests/test_visualize.py \
	$(filter-out $(NUMPY), \
	$(wildcard tests/attention/test_*.py tests/ylg/test_*.py))

# Where JAX computes, differentiates or trains by code of its own.
JAX := tests/optimizers tests/quantization/test_operators.py \
	tests/quantization/test_preparing.py::test_it_is_trained_saved_and_stripped \
	tests/test_compat.py tests/ylg/test_backends.py \
	$(addprefix tests/attention/test_,contract.py core.py memory.py \
	implementations.py operators.py pallas.py scale.py) \
	tests/test_pruning.py::test_what_is_zero_stays_zero_and_the_rest_learns \
	tests/test_recipes.py::test_an_interrupted_run_ends_as_if_it_was_not

# And what is saved; layers and mechanisms one by one are compiled for long.
JAX_ALL := $(JAX) tests/test_saved.py

# On PyTorch, where backends differ: what is computed, trained and saved.
TORCH := tests/layers tests/optimizers tests/quantization tests/test_augment.py \
	tests/test_distillation.py tests/test_losses.py tests/test_pruning.py \
	tests/test_recipes.py \
	tests/test_saved.py tests/test_segmentation_recipes.py \
	tests/test_explanations.py tests/test_visualize.py \
	tests/test_captioner.py tests/nets/test_kanet.py \
	tests/nets/test_vit.py \
	tests/nets/test_logits.py tests/zoo/test_loading.py \
	tests/ylg/test_backends.py tests/ylg/test_generator.py \
	tests/ylg/test_conditional_batch_normalization.py \
	tests/ylg/test_inception.py \
	$(filter-out $(NUMPY) tests/attention/test_superconcentrator%, \
	$(wildcard tests/attention/test_*.py))

# The wheel without CUDA, which takes 3 GB; not every index has it.
TORCH_VERSION := 2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu

# The ends of what setup.py allows; the default Python is what `test` is for.
LOWEST_KERAS := 3.12.0
PYTHONS := python3.11 python3.13

# What calls Keras and the backend most closely: where versions differ.
NEAR := tests/attention/test_grid_layers.py \
	tests/attention/test_local_sparse.py tests/attention/test_operators.py \
	tests/attention/test_spectral_normalization.py tests/test_compat.py \
	tests/test_losses.py tests/layers tests/nets/test_logits.py \
	tests/nets/test_channels_last.py \
	tests/ylg/test_conditional_batch_normalization.py

# Half of the tests each, whole files, as what a file makes once is dear; in
# the end the one that is done takes tests of the other.
WORKERS := -n 2 --dist worksteal

# JAX compiles every initializer for every shape; once is enough.
JAX_CACHE := JAX_COMPILATION_CACHE_DIR=$(abspath $(VENV))/jax \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

# TensorFlow's start-up messages are of no use here.
export TF_CPP_MIN_LOG_LEVEL ?= 2

# What `make bench` asks, a script a question; the last one sums up.
QUESTIONS := kronecker ylg_attention nets training startup report

.PHONY: demo test test-all test-torch test-lowest test-app test-serve \
	test-beam test-ray test-bounds test-wandb \
	lint slow bench docs links wheel test-wheel release clean

demo: $(VENV)/demo.stamp
	KERAS_BACKEND=tensorflow $(BIN)/kanets demo --to runs/demo

define tests
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest $(WORKERS) $(1)
	$(JAX_CACHE) KERAS_BACKEND=jax \
		$(BIN)/python -m pytest $(WORKERS) $(2)
endef

test: lint
	$(call tests,,$(JAX))
	@echo "SKIPPED, left to make test-all: the thorough tests; what is saved" \
		"on JAX; PyTorch; the lowest Keras"

test-all: lint
	$(call tests,-m "not slow",$(JAX_ALL))
	$(MAKE) --no-print-directory test-torch test-lowest
	@echo "SKIPPED, left to make slow: the tests that take minutes; each" \
		"mechanism's own, layers, nets, GANs, zoo, recipes, augmentation" \
		"and evaluation on JAX; to make test-app, test-serve, test-beam," \
		"test-ray, test-wandb and docs: what they are called by"

# Two processes on two cores: PyTorch's own threads would be in their way.
test-torch: $(VENV)/torch.stamp
	PYTHONPATH=$(basename $<) KERAS_BACKEND=torch OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest $(WORKERS) $(TORCH)

test-lowest: $(VENV)/keras-$(LOWEST_KERAS).stamp
	PYTHONPATH=$(basename $<) $(BIN)/python -c "import keras; \
		assert keras.__version__ == '$(LOWEST_KERAS)', keras.__version__"
	PYTHONPATH=$(basename $<) KERAS_BACKEND=tensorflow \
		$(BIN)/python -m pytest $(WORKERS) $(NEAR)

test-app: $(VENV)/app.stamp
	PYTHONPATH=$(basename $<) KERAS_BACKEND=tensorflow \
		$(BIN)/python -m pytest -p no:xdist -m "not slow" tests/app

test-serve: $(VENV)/serve.stamp
	PYTHONPATH=$(basename $<) KERAS_BACKEND=tensorflow \
		$(BIN)/python -m pytest -p no:xdist -m "not slow" tests/serve

test-beam: $(VENV)/beam.stamp
	PYTHONPATH=$(basename $<) KERAS_BACKEND=tensorflow \
		$(BIN)/python -m pytest -p no:xdist \
		-m "not slow" tests/scale tests/evaluation/test_sources.py

test-wandb: $(VENV)/wandb.stamp
	PYTHONPATH=$(basename $<) KERAS_BACKEND=tensorflow \
		$(BIN)/python -m pytest -p no:xdist -m "not slow" tests/test_dashboards.py

test-ray: $(VENV)/ray.stamp
	PYTHONPATH=$(basename $<) KERAS_BACKEND=tensorflow \
		$(BIN)/python -m pytest -p no:xdist -m "not slow" \
		tests/scale/test_ray_predict.py tests/distribute/test_launchers.py \
		tests/data/test_packing.py

# A Python that is not there is named, at the end, and is no success.
test-bounds: test-lowest
	@skipped=; for python in $(PYTHONS); do \
		if ! $$python -c "" 2>/dev/null; then \
			skipped="$$skipped $$python"; continue; fi; \
		$(MAKE) --no-print-directory $(VENV)/$$python.stamp || exit 1; \
		echo "On $$($(VENV)/$$python/bin/python --version):"; \
		KERAS_BACKEND=tensorflow $(VENV)/$$python/bin/python -m pytest \
			$(WORKERS) $(NEAR) || exit 1; \
	done; \
	test -z "$$skipped" || echo "SKIPPED, not on this machine:$$skipped"

bench: $(VENV)/bench.stamp
	set -e; for question in $(QUESTIONS); do \
		$(BIN)/python benchmarks/$$question.py; done

docs: $(VENV)/docs.stamp $(VENV)/torch.stamp
	PYTHONPATH=$(abspath $(VENV)/torch) NO_MKDOCS_2_WARNING=1 KERAS_BACKEND=tensorflow \
		$(BIN)/python -m mkdocs build --quiet

links:
	$(PYTHON) docs/check_links.py

wheel: $(VENV)/wheel.stamp
	rm -rf build dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/empty
	build/empty/bin/pip install --quiet dist/*.whl
	cd build && empty/bin/kanets demo --epochs 1 --to demo
	cd build && empty/bin/kanets predict kanet_lite0_imagenet \
		demo/data/val/ship/*.jpg

# From build/, where no kanets is but what is installed.
test-wheel: wheel
	build/empty/bin/pip install --quiet "$$(echo dist/*.whl)[app,serve]"
	cd build && PYTHONSAFEPATH=1 empty/bin/python ../tests/try_wheel.py \
		"$$(ls demo/data/val/ship/*.jpg | head -n 1)"

# The tag is pushed by hand: .github/workflows/release.yml publishes it.
release: wheel
	test -z "$$(git status --porcelain)"
	git tag v$$($(BIN)/python setup.py --version)

slow: $(VENV)/test.stamp
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -m slow
	$(JAX_CACHE) KERAS_BACKEND=jax \
		$(BIN)/python -m pytest $(WORKERS) -m "not slow" $(NEUTRAL)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/demo.stamp: setup.py | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/test.stamp: setup.py | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/keras-$(LOWEST_KERAS).stamp: $(VENV)/test.stamp
	$(BIN)/pip install --quiet --upgrade --no-deps \
		--target $(basename $@) keras==$(LOWEST_KERAS)
	touch $@

# Beside the other packages, not among them: only test-torch finds it.
$(VENV)/torch.stamp: $(VENV)/test.stamp
	$(BIN)/pip install --quiet --upgrade --target $(basename $@) \
		torch==$(TORCH_VERSION) || \
	$(BIN)/pip install --quiet --upgrade --target $(basename $@) \
		--extra-index-url $(TORCH_INDEX) torch==$(TORCH_VERSION)
	touch $@

$(VENV)/python%.stamp: setup.py
	python$* -m venv $(basename $@)
	$(basename $@)/bin/pip install --quiet --editable . pytest pytest-xdist
	touch $@

# Beside the other packages, whose versions it would change.
$(VENV)/app.stamp: $(VENV)/test.stamp
	$(BIN)/pip install --quiet --upgrade --target $(basename $@) gradio \
		playwright
	touch $@

$(VENV)/serve.stamp: $(VENV)/test.stamp
	$(BIN)/pip install --quiet --upgrade --target $(basename $@) kserve
	touch $@

$(VENV)/wandb.stamp: $(VENV)/test.stamp
	$(BIN)/pip install --quiet --upgrade --target $(basename $@) wandb
	touch $@

$(VENV)/beam.stamp: $(VENV)/test.stamp
	$(BIN)/pip install --quiet --upgrade --target $(basename $@) \
		"apache-beam>=2.77" opencv-python-headless
	touch $@

$(VENV)/ray.stamp: $(VENV)/test.stamp
	$(BIN)/pip install --quiet --upgrade --target $(basename $@) \
		"ray[data]>=2.60" "grain>=0.2.18" array_record
	touch $@

$(VENV)/docs.stamp: setup.py | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)/wheel.stamp: | $(BIN)/python
	$(BIN)/pip install --quiet build twine setuptools
	touch $@

$(VENV)/bench.stamp: setup.py | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[bench]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) runs/demo build dist *.egg-info
