# `make help` lists the commands. `make demo` and `make test` each work as the first command on a fresh clone.
SHELL := /bin/bash
PYTHON := .venv/bin/python
# Three files at a time, in the order of tests/conftest.py, since jobs often wait for servers and for their own processes: two leave a
# fifth of two cores idle. Tests of one file share what it set up.
PYTEST := $(PYTHON) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
DATA ?=
export TF_CPP_MIN_LOG_LEVEL ?= 3
# Containers often set it. Each of the processes that tests start would then compile our modules anew, 3 s in a worker of pytest.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo real test unit e2e test-next engines-test check format drill bench audit image lock clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:  ## make .venv with the locked packages (the other commands call it; does nothing when it is up to date)
	@.ci/make-venv

demo: setup  ## the whole job on simulated exports: shards, pretraining, two segmenters, evaluation, push
	@$(PYTHON) -m pipeline run --config pipeline/configs/demo.yaml
	@$(PYTHON) -m pipeline serve-check --config pipeline/configs/demo.yaml
	@$(PYTHON) -m pipeline simulate --output runs/demo/unseen --set num_places=1 --set num_dates=1 --set seed=99 > /dev/null
	@$(PYTHON) -m pipeline predict --model runs/demo/serving/flood --scenes runs/demo/unseen --set polygons.classes=[water] \
	  --output runs/demo/maps/$$(ls runs/demo/serving/flood | sort -n | tail -1)

real: setup  ## the same job on real exports: make real DATA=<dir>
	@test -n "$(DATA)" || { echo "usage: make real DATA=<folder with catalogs or public data set folders>" >&2; exit 2; }
	@$(PYTHON) -m pipeline run --config pipeline/configs/local.yaml --data "$(DATA)"
	@$(PYTHON) -m pipeline serve-check --config pipeline/configs/local.yaml

# mypy needs one core for a minute, so the checks run beside the tests. Their output comes last, and either failure is a failure.
test: setup  ## format, lint, types, imports, and all tests
	@make --no-print-directory check > .venv/check.log 2>&1 & checks=$$!; \
	$(PYTEST); tests=$$?; \
	wait $$checks; checks=$$?; cat .venv/check.log; \
	test $$checks -eq 0 && exit $$tests || { echo "make check failed" >&2; exit 1; }

unit: setup  ## the quick tests only
	@$(PYTEST) -m "not e2e"

e2e: setup  ## the tests that run whole jobs
	@$(PYTEST) -m e2e

test-next:  ## the tests of models and beam_jobs with the newest TensorFlow, Keras, Beam and NumPy, in .venv-next
	@.ci/test-next

engines-test: setup  ## the data jobs on Flink and Spark clusters on this machine, whose members are killed; half an hour, needs Java and Maven
	@$(PYTHON) -W ignore -m tests.engines

check: setup  ## format, lint, types, imports
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache > .venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

format: setup  ## format the code and mend what lint can mend
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --fix --quiet .

drill: setup  ## retrain in simulation: kill a month, and poison others in each known way; a quarter of an hour
	@$(PYTHON) -m tests.drills.three_months
	@$(PYTHON) -m tests.drills.poisons

bench: setup  ## measure speed and memory
	@$(PYTHON) -m tests.benchmarks

audit: setup  ## look for known vulnerabilities of the locked packages; exit 3 where nobody answers
	@$(PYTHON) .ci/audit.py

image:  ## build the container image terrapair:latest with podman or docker (IMAGE_FLAGS=... goes to the builder)
	@.ci/make-image

lock:  ## resolve pyproject.toml into requirements.txt, and what the images have in place of TensorFlow
	@test -x $(PYTHON) || .ci/make-venv
	@$(PYTHON) -m uv --native-tls pip compile --universal --generate-hashes --python-version 3.11 --extra pipeline --extra gcp --extra earthengine --extra dev --quiet \
	  --custom-compile-command "make lock" pyproject.toml --output-file requirements.txt
	@for device in cpu gpu; do \
	  case $$device in cpu) package='tensorflow-cpu' flags=--no-deps;; gpu) package='tensorflow[and-cuda]' flags=--no-strip-extras;; esac; \
	  sed -nE "s/^tensorflow==([^ ]+) .*/$$package==\1/p" requirements.txt | $(PYTHON) -m uv --native-tls pip compile --universal \
	    $$flags --no-annotate --constraint requirements.txt --generate-hashes --python-version 3.11 --quiet \
	    --custom-compile-command "make lock" - \
	    --output-file .ci/image/$$device/requirements.txt || exit 1; \
	done

clean:  ## remove runs and caches (not .venv)
	@rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
