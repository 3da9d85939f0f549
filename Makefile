# `make help` lists the commands. They work with GNU Make 3.81 and need only Python 3.11+.

PROFILE ?= quick
SEEDS ?=
ONLY ?=
JOBS ?=
CORES ?=
PARAMS ?=
EXECUTOR ?=
PARTITION ?=
ACCOUNT ?=
ASKED := $(filter-out file,$(origin PROFILE))# whether a profile was given; the overrides below hide it
# Values are passed to the commands through the environment, where no character is special to a shell,
# and $(value) keeps a $ from being expanded by make.
$(foreach name,PROFILE SEEDS ONLY JOBS CORES PARAMS EXECUTOR PARTITION ACCOUNT,$(eval override $(name) := $$(value $(name))))
export PROFILE SEEDS ONLY JOBS CORES PARAMS EXECUTOR PARTITION ACCOUNT
# Import `lib` from this folder, even if that of another clone is installed.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

# Use the active virtual or conda environment (except conda's base), otherwise create and use .venv.
OWN := $(CURDIR)/.venv
ACTIVE := $(VIRTUAL_ENV)
ifneq ($(CONDA_DEFAULT_ENV),base)
ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
endif
ifeq ($(ACTIVE),$(OWN))
ACTIVE :=
endif
BIN := $(or $(ACTIVE),$(OWN))/bin
PYTHON := $(BIN)/python
WORKFLOW = "$(PYTHON)" -m lib.press.workflow
SELECTION = --profile "$$PROFILE" --seeds "$$SEEDS" --only "$$ONLY" --params "$$PARAMS" --jobs "$$JOBS" --cores "$$CORES" \
	--executor "$$EXECUTOR" --partition "$$PARTITION" --account "$$ACCOUNT"

# The profile if one was given, otherwise all.
CHOSEN = --profile $(if $(ASKED),"$$PROFILE","")

.SUFFIXES:
.PHONY: help environment figures plan paper verify site test check lab bench outputs release-check format lint clean

help: ## List the commands
	@echo "make <command>, with"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Settings, with their defaults:"
	@echo "  PROFILE=quick   which profile of profiles/: smoke, quick, trained, public, gpu, paper"
	@echo "  SEEDS=\"0\"       seeds to run (default: those of the profile)"
	@echo "  ONLY=           names of notebooks (default: all); those that they read run, too, where stale"
	@echo "  JOBS=1          notebooks at a time; they share the cores"
	@echo "  CORES=          cores to use (default: all)"
	@echo "  PARAMS=         parameters of notebooks, such as PARAMS=\"epochs=3\"; results go to <profile>-custom"
	@echo "  EXECUTOR=       of Snakemake's, such as slurm: run on a cluster (JOBS: notebooks at a time, CORES: of each)"
	@echo "  PARTITION= ACCOUNT=  of the cluster"
	@echo "  DATA_ROOT=data  where data sets are looked for"
	@echo "  OUTPUT_ROOT=.   where figures/ and build/ are written"

environment: ## Set up the environment (all other commands do it by themselves)
	@if [ -n "$(ACTIVE)" ]; then sh .ci/environment active "$(ACTIVE)"; else sh .ci/environment own "$(OWN)"; fi

figures: environment ## Run what is stale of a profile's notebooks; results are in figures/<profile>/
	@$(WORKFLOW) figures $(SELECTION)

plan: environment ## Tell what `make figures` would run and why
	@$(WORKFLOW) plan $(SELECTION)

verify: environment ## Check the stored results: whole, unaltered, of their profile, up to date (PROFILE= for one)
	@$(WORKFLOW) verify $(CHOSEN)

site: environment ## Write build/site/index.html: all results of a profile, to read in a browser without a network
	@$(WORKFLOW) site --profile "$$PROFILE"

paper: environment ## Set build/paper/paper-<profile>.pdf from the stored results (PROFILE=public unless given)
	@$(WORKFLOW) paper --profile "$(if $(ASKED),$$PROFILE,public)"

test: lint ## Check the style and the imports, and run all tests, notebooks included
	@"$(PYTHON)" -m pytest -n $(or $(CORES),2) --dist loadfile --no-loadscope-reorder

check: lint ## Check the style and the imports, and run the tests of seconds: for every save
	@"$(PYTHON)" -m pytest -n $(or $(CORES),2) --dist loadfile -m "not slow"

lab: environment ## Open JupyterLab
	@"$(PYTHON)" -m jupyterlab --ServerApp.root_dir="$(CURDIR)" notebooks

bench: environment ## Measure what the losses cost
	@"$(PYTHON)" benchmarks/run.py

release-check: ## Do from a bare clone what the README says, and tell how long each step takes (an hour)
	@sh benchmarks/release.sh

outputs: environment ## Run the smoke profile and store the checked cells' outputs in the notebooks
	@PROFILE=smoke; export PROFILE; $(WORKFLOW) outputs $(SELECTION)

format: environment ## Format the code
	@"$(PYTHON)" -m ruff check --fix --quiet . ; "$(PYTHON)" -m ruff format .

lint: environment ## Check the style, the imports and the Dockerfile
	@"$(PYTHON)" -m ruff check .
	@"$(PYTHON)" -m ruff format --check .
	@"$(BIN)/hadolint" Dockerfile
	@"$(PYTHON)" -c "from importlinter.cli import lint_imports_command as lint; lint()"

clean: ## Remove build/, figures/smoke and figures/*-custom; results, data and .venv stay
	@root="$${OUTPUT_ROOT:-.}"; case "$$root" in "~/"*) root="$$HOME/$${root#"~/"}" ;; esac; rm -rf "$$root/build" "$$root/figures/smoke" "$$root"/figures/*-custom "$$root/.snakemake"
	@echo "Removed build/ (checkpoints too), figures/smoke and figures/*-custom."
	@echo "Kept the results of the other profiles in figures/, the data sets and .venv."
