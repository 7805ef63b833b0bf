# make demo · make test · make test-slow · make test-fast · make check · make bench; each sets up .venv first, with what it needs
PYTHON ?= python3
BIN := .venv/bin
# faiss with CUDA where there is a GPU; the two builds of faiss fill the same folder, so that one alone is installed
FAISS := $(if $(wildcard /dev/nvidiactl),gpu,approximate)
# pip runs from outside, so that a Python without ensurepip (Debian's, say) will do
INSTALL = $(PYTHON) -m pip --python $(BIN)/python install -c requirements.lock
# an outside baseline, which compiles itself; where there is no C++ compiler the demo says so and leaves it out
PDQ = $(INSTALL) -q pdqhash >/dev/null 2>&1 || echo 'PDQ, an outside baseline, is left out: no C++ compiler'
# needs pdqhash too; without it the tests of the signal type are skipped
THREATEXCHANGE = $(INSTALL) -q threatexchange >/dev/null 2>&1 || echo 'threatexchange is left out: no C++ compiler'
# the values that our metrics of captions are held to; without it that test is skipped. A wheel of 104 MB
COCO = $(INSTALL) -q --no-deps pycocoevalcap==1.2 >/dev/null 2>&1 || echo 'pycocoevalcap is left out: no network'
# modules are compiled once, not again in each of the hundreds of processes of the tests
unexport PYTHONDONTWRITEBYTECODE
LOCKED := setup.cfg pyproject.toml requirements.lock

.PHONY: help setup demo test test-slow test-fast check docs format fuzz bench results lock licences release sbom clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 — /p' $(MAKEFILE_LIST)

setup: .venv/for-tests  ## a virtual environment in .venv with the locked versions and all that the tests need

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv --without-pip .venv

.venv/for-demo: $(LOCKED) | $(BIN)/python
	$(INSTALL) -e '.[train]'
	$(PDQ)
	@touch $@

.venv/for-tests: $(LOCKED) | $(BIN)/python
	$(INSTALL) -e '.[dev,$(FAISS)]'
	$(PDQ)
	$(THREATEXCHANGE)
	$(COCO)
	@touch $@

demo: .venv/for-demo  ## train, extract, match and judge on the sample photos; at most 5 minutes
	$(BIN)/isc demo demo

test: setup  ## the tests of the package, on all cores, within 8 minutes on two; with SLOW=too all of them
	$(BIN)/python -m pytest -n logical $(if $(SLOW),,-m 'not slow')

test-slow: setup  ## the others, of two seconds or more each: kills, browsers, clusters, trainings, the demo
	$(BIN)/python -m pytest -n logical -m slow

# files whose tests load no network and start no command
FAST := bootstrap calibration compare descriptors edits geometry images imports io local loss metrics normalize \
	proposals report results search search_views sources views

test-fast: setup  ## the tests that load no network and start no command, for every change
	$(BIN)/python -m pytest -q -n logical -m 'not slow' $(FAST:%=tests/test_%.py)

check: setup  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs:  ## the pages of docs/ as a site in site/, with strict links
	test -x .venv-docs/bin/mkdocs || $(PYTHON) -m venv --without-pip .venv-docs
	$(PYTHON) -m pip --python .venv-docs/bin/python install -q -c requirements.lock 'mkdocs-material' 'mkdocstrings[python]'
	.venv-docs/bin/mkdocs build --strict

format: setup  ## format and mend what can be
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: setup  ## change sound files at random for some minutes: every reader reads them, or refuses them in one line
	$(BIN)/python -m benchmarks.fuzz

bench: setup  ## speed figures, and docs/results.md from them
	$(BIN)/python -m benchmarks

results: setup  ## docs/results.md and the figures of all pages, from benchmarks/results/*.json
	$(BIN)/python -m benchmarks.results

lock:  ## lock what setup.cfg has new, all extras; the other versions stay (needs uv)
	uv pip compile setup.cfg --universal --python-version 3.11 --all-extras \
		--no-header --no-annotate --quiet -o requirements.lock

# tools that write about the package and are no part of it
.venv-release/done: Makefile
	test -x .venv-release/bin/python || $(PYTHON) -m venv --without-pip .venv-release
	$(PYTHON) -m pip --python .venv-release/bin/python install -q 'pip>=25.1' 'build>=1.2' packaging \
		'cyclonedx-python-lib[json-validation]>=11'
	@touch $@

# the metadata of all locked packages; nothing is installed
build/locked.json: requirements.lock .venv-release/done
	@mkdir -p build
	.venv-release/bin/python -m pip install -q --dry-run --ignore-installed --no-deps --report $@ -r requirements.lock

licences: build/locked.json  ## the table of THIRD_PARTY.md: each locked package with its licence
	.venv-release/bin/python -m benchmarks.licences build/locked.json

release: build/locked.json  ## the wheel, and its bill of materials (CycloneDX), in dist/
	rm -rf dist build/lib build/bdist.*
	.venv-release/bin/python -m build --wheel
	$(MAKE) sbom

sbom: build/locked.json  ## the bill of materials of the wheel in dist/ and of all that its extras bring
	.venv-release/bin/python -m benchmarks.sbom build/locked.json dist/isc-*.whl

clean:  ## remove the environment and everything made
	rm -rf .venv .venv-docs .venv-release site demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
