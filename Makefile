# `make help` lists the targets. Everything runs in .venv, which `make setup` makes from hashed requirement files.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
# DVC keeps pickles there; by default in /var/tmp, which others can write to (CVE-2025-69872).
export DVC_SITE_CACHE_DIR := $(CURDIR)/.dvc/tmp/site-cache
# Settings that would install elsewhere than into .venv.
unexport PIP_USER PIP_TARGET PIP_PREFIX
# Without bytecode each of the hundreds of processes that tests and stages start compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE
export UV_SYSTEM_CERTS ?= true
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif

# uv takes certificates and package index from where pip takes them, variables or pip.conf; pip takes SSL_CERT_FILE too,
# which pips before 24.2 do not know.
define FROM_PIP
set_in_pip() { $(BIN)/python -m pip config list | sed -n "s/^global\.$$1='\(.*\)'$$/\1/p"; }; \
  cert="$${PIP_CERT:-$$(set_in_pip cert)}"; index="$${PIP_INDEX_URL:-$$(set_in_pip index-url)}"; \
  if [ -n "$$cert$$SSL_CERT_FILE" ]; then export PIP_CERT="$${cert:-$$SSL_CERT_FILE}" SSL_CERT_FILE="$${SSL_CERT_FILE:-$$cert}"; fi; \
  if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"; fi
endef

.PHONY: help setup repro test docs check audit format experiments serve bench-service attack-service bench-training bench-drift bench-score bench-precision bench-tracking bench-shadow ablation baselines baselines-table test-ray test-image release lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: .venv/.installed  ## create .venv and install the pinned packages

.venv/.installed: requirements/bootstrap.txt requirements/dev.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"{sys.executable} is Python {sys.version.split()[0]}, expected 3.11 or later; set PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(FROM_PIP); $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/bootstrap.txt \
	  && $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt \
	  && $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . \
	  || { echo "make setup: the packages could not be installed; check the network and pip's settings (PIP_INDEX_URL; PIP_CERT behind a proxy that reads TLS)" >&2; exit 1; }
	@touch $@

repro: setup  ## run the pipeline, then print metrics and the path of the report
	@dvc repro
	@emotion-yolo report

test: setup  ## run the tests with coverage
	@pytest

docs: setup  ## build the documentation site in build/docs/site; dead links are errors
	@python docs/site/build.py

check: setup docs  ## format, lint, types, import contracts, unused code and dependencies, documentation site
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	vulture
	deptry .

audit: setup  ## look for known vulnerabilities in the pinned packages (queries PyPI) and in the workflows
	zizmor --offline --quiet .github/workflows
	for file in api train dev; do pip-audit --strict --disable-pip --require-hashes --requirement requirements/$$file.txt \
	  || { echo "make audit: $$file.txt has the holes listed above; or, where nothing is listed or packages \"could not be audited\", the vulnerability database cannot be asked from here" >&2; exit 1; }; done

format: setup  ## format and sort imports
	ruff format .
	ruff check --fix .

experiments: setup  ## print the table of experiments: a few metrics, the params that differ, the best first
	@emotion-yolo experiments

serve: setup  ## serve models/release, or the folder in EMOTION_MODEL
	@python -m api

bench-service: setup  ## measure the service beside a naive one (PHOTO=some.jpg)
	@test -n "$(PHOTO)" || { echo "name a photo: make bench-service PHOTO=some.jpg"; exit 2; }
	@python -m benchmarks.service --photo $(PHOTO) --weights models/release/weights.pt

attack-service: setup  ## attack the service for ten minutes beside an honest client
	@python -m benchmarks.siege

bench-training: setup  ## measure an epoch beside one of bare Ultralytics, on the prepared set
	@python -m benchmarks.training

bench-drift: setup  ## measure false alarms and detection of `emotion-yolo monitor` (PICTURES=folder)
	@test -n "$(PICTURES)" || { echo "name a folder of pictures: make bench-drift PICTURES=folder"; exit 2; }
	@python -m benchmarks.drift $(PICTURES)

bench-score: setup  ## measure `emotion-yolo score`: one worker, two, a plain loop (PICTURES=folder, MODEL=models/release)
	@python -m benchmarks.scoring $(or $(PICTURES),datasets/sample/sample-scenes) --model $(or $(MODEL),models/release)

bench-precision: setup  ## measure fp32, bf16 and INT8 at several input sizes, on the prepared set (MODEL=models/release)
	@python -m benchmarks.precision --model $(or $(MODEL),models/release)

bench-tracking: setup  ## measure tracks on a drawn video: switches, flicker, frames a second (MODEL=models/release)
	@python -m benchmarks.tracking --model $(or $(MODEL),models/release)

bench-shadow: setup  ## measure what a candidate in the shadow costs the answers (PHOTO=some.jpg)
	@test -n "$(PHOTO)" || { echo "name a photo: make bench-shadow PHOTO=some.jpg"; exit 2; }
	@python -m benchmarks.shadow --photo $(PHOTO)

ablation: setup  ## measure what each ingredient of the recipe is worth, on valid; resumes an interrupted run (PLAN=some.yaml)
	@python -m benchmarks.ablation $(or $(PLAN),configs/ablations/ingredients.yaml)

baselines: setup  ## train and assemble the two-stage models of params.yaml, section baselines (NAME=resnet18: one)
	@dvc repro $(if $(NAME),baselines/dvc.yaml:assemble@$(NAME),baselines/dvc.yaml)

baselines-table: setup  ## measure them beside the one-pass release on the prepared test crops, all sets
	@python -m benchmarks.baselines

test-ray: setup  ## kill workers and nodes of a Ray cluster here while it scores; the Ray Serve example (minutes, quiet machine)
	@EMOTION_TEST_RAY=1 pytest -q -n 0 --no-cov tests/integration/test_score_ray.py tests/integration/test_serve_ray.py

test-image: setup  ## run the service from the Dockerfile's own steps in an empty environment (minutes)
	@pytest -o addopts="" --import-mode=importlib dockerfiles/test_image.py

release: setup  ## make the evaluated model the release in models/release
	@emotion-yolo release

lock:  ## resolve requirements/*.txt again from pyproject.toml
	@$(FROM_PIP); uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --no-header pyproject.toml --extra api -o requirements/api.txt
	@$(FROM_PIP); uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --no-header pyproject.toml --extra train -c requirements/api.txt -o requirements/train.txt
	@$(FROM_PIP); uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --no-header pyproject.toml --all-extras -o requirements/dev.txt

clean:  ## remove what can be made again; data, models and caches of DVC stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .ultralytics .coverage htmlcov
