# hgsr-lite. `make` alone lists the targets.
PYTHON ?= python3
ARGS ?=
REPO ?=
BRANCH ?= main
VERSION ?=
SITE ?=
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install -qq --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup run test test-arithmetic test-colab test-classic mutants lint lab badges execute timings site bench study clean distclean
.DELETE_ON_ERROR:

help:  ## list the targets
	@echo "make TARGET [PYTHON=python3.12] [ARGS='...']"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-17s%s\n", $$1, $$2}'

$(PY):
	$(PYTHON) -m venv $(VENV)

# The stamps depend on what is installed, so a second call installs nothing and needs no network.
$(VENV)/installed: requirements.txt requirements-package.txt requirements-notebooks.txt \
		requirements-series.txt constraints.txt pyproject.toml | $(PY)
	@echo "Installing into $(VENV): some minutes and 7 GB the first time."
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/installed-for-tests: requirements-dev.txt requirements-study.txt $(VENV)/installed
	@$(PIP) -r requirements-dev.txt -r requirements-study.txt
	@touch $@

$(VENV)/installed-for-studies: requirements-study.txt $(VENV)/installed
	@$(PIP) -r requirements-study.txt
	@touch $@

setup: $(VENV)/installed-for-tests  ## make .venv and install everything into it

run: $(VENV)/installed  ## execute the notebooks on real images into build/run; close with a table of figures
	@$(PY) -m hgsr_lite run $(ARGS)

test: setup  ## lint, spelling, then all tests
	@$(PY) -m hgsr_lite test $(ARGS)

test-arithmetic: setup  ## what trains or claims a figure, under four kinds of arithmetic (ARGS=narrow: one)
	@$(PY) -m hgsr_lite test-arithmetic $(ARGS)

lint: setup  ## style, spelling, and the order in which rooms import each other
	@$(PY) -m hgsr_lite lint

test-colab: setup  ## run each notebook alone in Colab's versions; builds build/colab (6 GB) the first time
	@$(PY) -m hgsr_lite test-colab $(ARGS)

test-classic: setup  ## live figures in the classic Notebook, ipywidgets 7; builds build/classic (0.2 GB) at first
	@$(PY) -m hgsr_lite test-classic $(ARGS)

mutants: setup  ## put faults into the files that decide, one at a time: is each noticed? (ARGS=zeros: in one)
	@$(PY) -m hgsr_lite mutants $(ARGS)

lab: $(VENV)/installed  ## open the notebooks in JupyterLab, on this machine only
	@$(PY) -m hgsr_lite lab $(ARGS)

badges: $(VENV)/installed  ## write launch rows for REPO=owner/name BRANCH=main SITE=address; without REPO, none
	@$(PY) -m hgsr_lite badges --repository=$(REPO) --branch=$(BRANCH) --site=$(SITE) --version=$(VERSION)

execute: $(VENV)/installed  ## run the notebooks from a clean kernel and write their outputs back
	@$(PY) -m hgsr_lite execute $(ARGS)

timings: $(VENV)/installed  ## measure each notebook and write the figure into its header
	@$(PY) -m hgsr_lite timings $(ARGS)

site: setup  ## build the series as a static site into build/site; it needs no network
	@$(PY) -m hgsr_lite site $(ARGS)

bench: setup  ## time penalties, training, dead kernels and live figures, side by side
	@$(PY) -m hgsr_lite bench $(ARGS)

study: $(VENV)/installed-for-studies  ## make the runs of STUDY=studies/NAME.toml that are missing
	@$(PY) -m hgsr_lite study run $(STUDY) $(ARGS)

clean:  ## delete build/ and caches
	rm -rf build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## delete .venv as well
	rm -rf $(VENV)
