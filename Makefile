# Every target installs what it needs by itself, into .venv, in the tested versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := bin/python -m pip install --quiet --disable-pip-version-check
DEMO := runs/fadrm-digits-ipc10
LAUNCH := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no
# A file's tests share what they made, and so a process. Each takes up to 3 GB, hence four at most.
PYTEST := bin/pytest -q -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

COUNT := FAULT_CASES=results/fault-cases.json# what the table in docs/operations.md counts

.PHONY: help demo test test-data test-host test-processors test-lowest test-newest gpu docs results soak quality style \
	release-check clean-demo browser shells dd-ranking

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.library: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed: make PYTHON=python3.11 ...")'
	@echo "installing the library into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/$(PIP) -c constraints.txt -e .
	@touch $@

# What tests, quality and docs need beside the library: the extra of that name in pyproject.toml.
$(VENV)/.%: $(VENV)/.library
	@echo "installing what $* needs into $(VENV)"
	@$(VENV)/$(PIP) -c constraints.txt -e ".[$*]"
	@touch $@

demo: export OMP_NUM_THREADS = 1# the demo's networks are so small that threads would only wait for each other
demo: $(VENV)/.library ## distil ten classes of handwritten digits, train students on them, compare (CPU, minutes)
	@$(LAUNCH) recipes/distill.py --config recipes/configs/digits/fadrm_ipc10.yaml
	@$(BIN)/fadrm-hf baselines $(DEMO)

clean-demo: ## forget the demo, so that the next one starts anew (its teachers in runs/teachers stay)
	rm -rf $(DEMO) $(DEMO).*

test: $(VENV)/.test $(VENV)/.docs ## all tests (no GPU, no network) but for those of test-host
	$(VENV)/$(PYTEST) --ignore tests/no_op_device

test-host: $(VENV)/.test $(VENV)/.docs ## what a GPU's host does, on a CUDA device that computes nothing
	$(VENV)/$(PYTEST) tests/no_op_device

test-data: $(VENV)/.test $(VENV)/.docs ## the tests that need FADRM_HF_DATA, a folder of real images and papers' texts
	$(VENV)/$(PYTEST) -m real_data

test-processors: $(VENV)/.test $(VENV)/.docs ## what is numerical, as on a processor with AVX2 and on one with less
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(VENV)/$(PYTEST) -m numerical
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(VENV)/$(PYTEST) -m numerical

test-lowest: ## all tests with the lower bounds of pyproject.toml, in an environment of its own (PYTHON=python3.10)
	$(PYTHON) -m venv .venv.lowest
	.venv.lowest/$(PIP) -c constraints-lowest.txt -e ".[test,docs]"
	.venv.lowest/$(PYTEST)

test-newest: ## all tests with the newest releases, in an environment of its own (PYTHON=python3.13)
	$(PYTHON) -m venv .venv.newest
	.venv.newest/$(PIP) --upgrade --upgrade-strategy eager -e ".[test,docs]"
	.venv.newest/$(PYTEST)

# The machine's own torch is used, and what it lacks is installed beside it: from a folder of wheels, or by network.
gpu: LIMIT ?= 560
gpu: ## what needs a GPU, tested and measured in ten minutes (PYTHON=python3, WHEELS=folder, DATA=CIFAR-100, LIMIT=seconds)
	@test -e .venv.gpu || $(PYTHON) -m venv --system-site-packages .venv.gpu
	@.venv.gpu/$(PIP) $(if $(WHEELS),--no-index --find-links $(WHEELS)) --no-build-isolation -e ".[test]"
	.venv.gpu/bin/python benchmarks/gpu.py --seconds $(LIMIT) $(if $(DATA),--data $(DATA))

docs: $(VENV)/.docs ## the documents as a site, in site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

browser: ## a Chromium for the tests of pages, where there is none: Debian's, for which one must be root
	@program=$$(command -v $${FADRM_HF_CHROMIUM:-chromium} chromium-browser google-chrome google-chrome-stable | head -n 1); \
	if [ -n "$$program" ]; then echo "browser: $$program"; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then \
		echo "browser: none, and only root can install Debian's: tests of pages are skipped" >&2; exit 1; \
	else apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends -y chromium; fi

shells: ## zsh and tcsh for the tests of completion, where they are missing: Debian's, for which one must be root
	@if command -v zsh > /dev/null && command -v tcsh > /dev/null; then echo "shells: zsh, tcsh"; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then \
		echo "shells: not all, and only root can install Debian's: tests of completion are skipped" >&2; exit 1; \
	else apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends -y zsh tcsh; fi

dd-ranking: $(VENV)/.test ## DD-Ranking, whose loader reads an export back in the tests; it works beyond its bound on NumPy
	$(VENV)/$(PIP) --no-deps ddranking==0.2.0 kornia kornia_rs

results: $(VENV)/.library ## the page of results, from the files beside it
	$(BIN)/python recipes/results_page.py

soak: export OMP_NUM_THREADS = 1# as many processes as there are cores
soak: $(VENV)/.test ## the long form: a hundred kills, faults at every moment, bad input timed, fuzzing (CPU, some hours)
	rm -f results/fault-cases.json
	$(COUNT) SOAK_KILLS=100 SOAK_RESULT=results/soak-kills.json $(BIN)/pytest -q tests/robustness/test_soak.py
	$(COUNT) FAULTS=all $(BIN)/pytest -q tests/robustness/test_faults.py tests/robustness/test_kills.py \
		tests/robustness/test_changes.py tests/robustness/test_foreign_files.py tests/publishing/test_publish.py
	$(BIN)/python benchmarks/bad_input.py
	$(COUNT) FUZZ_EXAMPLES=1000 $(BIN)/pytest -q --timeout 1800 tests/robustness/test_fuzz.py tests/robustness/test_edited_files.py
	$(BIN)/python tests/fixtures/cases.py

quality: $(VENV)/.quality ## lint, format, types and spelling, as CI checks them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos

style: $(VENV)/.quality ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

release-check: $(VENV)/.test ## what is released, in dist/: built, checked, installed alone and run
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/pytest -q tests/documents/test_release.py
