# Everything a contributor does. Each target installs what it needs into .venv by itself.

PYTHON ?= python3
RUN ?= workloads/llm/run.yaml
# Whether somebody said which run: what changes a cloud does not guess.
NAMED := $(filter-out file,$(origin RUN))
NEEDS_RUN := $(if $(NAMED),,which-run)
CLOUD_RUN = $(if $(NAMED),$(RUN),workloads/llm/production.yaml)
ARGS ?=
THRESHOLDS ?= workloads/llm/thresholds.yaml

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# What was installed, as empty files: a target is up to date when they are newer than what they stand for.
MADE := $(VENV)/.made
LOCKED := $(VENV)/.locked
TORCHED := $(VENV)/.torch
READY := $(VENV)/.ready
# What only a contributor needs, and what only the cloud side does: `make demo` and `make llm` do without both.
DEV := $(VENV)/.dev
CLOUD := $(VENV)/.cloud
# checkov's pins clash with ours: it has an environment of its own.
CHECKOV := $(VENV)/checkov/.made

# The choice of PyTorch stays until another one is made.
INSTALLED_TORCH := $(file <$(TORCHED))
TORCH ?= $(or $(INSTALLED_TORCH),$(file <pytorch.txt))
ifneq ($(TORCH),$(INSTALLED_TORCH))
$(TORCHED): another-torch
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHARD ?=
WORKLOAD ?= llm
.PHONY: help venv demo llm vlm arr-coc arr-coc-comparison ablations validate bench test test-slow scenarios strikes kinds examples programs rehearsals test-all check format lock clean another-torch
.PHONY: synth doctor deploy diff start stop destroy logs ssh drill which-run terraform checkov golden pages

ON_THE_PATH = printf '%s\n' 'For your own training, put spot on the PATH of this shell: source $(BIN)/activate' 'Then: spot run RUN.yaml'

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '%s\n' '' \
	  'Variables (make TARGET NAME=VALUE):' \
	  '  RUN        the run file; `make llm` has a default [$(RUN)]' \
	  '  WORKLOAD   what `make demo` trains: llm, vlm or arr-coc [$(WORKLOAD)]' \
  '  THRESHOLDS what `make validate` holds RUN against [$(THRESHOLDS)]' \
	  '  ARGS       more arguments, for pytest or spot, such as "-k window -x" or "--event notice --follow"' \
	  '  PYTHON     the Python to build .venv with, 3.11 or newer [$(PYTHON)]' \
	  '  TORCH      the PyTorch build: a version, a wheel file or its address [$(TORCH)]' '' \
	  'PyTorch is not in requirements.lock, because which build fits depends on the machine: the default is your' \
	  "index's own, on Linux a large one with CUDA. For another, such as the small CPU build, give its index or file:" \
	  '  PIP_EXTRA_INDEX_URL=INDEX make venv TORCH=torch==2.13.0+cpu' \
	  '  make venv TORCH=./torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl' \
	  'The choice stays until another one is made.'

venv: $(CLOUD) $(DEV) ## Install everything into .venv
	@$(ON_THE_PATH)

demo: $(READY) ## Train, preempt, resume on the local cloud; prove that nothing was lost
	@$(BIN)/python -m infra.local.demo --workload $(WORKLOAD) $(ARGS)
	@$(ON_THE_PATH)

llm: $(READY) ## Train RUN on the local cloud
	@$(BIN)/spot run $(RUN)

vlm: $(READY) ## Train a small model that sees on the local cloud, on composed pictures (161 MB, fetched once)
	@$(if $(NAMED),,$(BIN)/python -m workloads.scenes scenes:stamps)
	@$(BIN)/spot run $(if $(NAMED),$(RUN),workloads/vlm/run.yaml)

ablations: $(READY) ## Train RUN's experiments side by side on the local cloud, and compare them
	@$(BIN)/spot ablate $(if $(NAMED),$(RUN),workloads/llm/ablations.yaml) $(ARGS)

# RUN is the llm's unless somebody says which.
ARR_COC_RUN = $(if $(NAMED),$(RUN),workloads/arr_coc/run.yaml)
arr-coc: $(READY) ## Train ARR-COC on digits in panes, on the local cloud
	@$(BIN)/spot run $(ARR_COC_RUN) $(ARGS)

arr-coc-comparison: $(READY) ## Compare ARR-COC with random, uniform and pooled tokens, and without each way of knowing
	@$(BIN)/python -m workloads.arr_coc.compare $(ARR_COC_RUN) $(ARGS)

synth: $(CLOUD) ## Write RUN's stacks as Terraform's JSON, and check them
	@$(BIN)/spot synth $(CLOUD_RUN) $(ARGS)

terraform: $(CLOUD) ## Let Terraform itself read RUN's stacks, where it has Google's plugin
	@$(BIN)/spot synth $(CLOUD_RUN)
	@$(BIN)/python -m infra.proof.validate cdktf.out

checkov: $(CLOUD) $(CHECKOV) ## Ask checkov about the security of RUN's stacks
	@$(BIN)/spot synth $(CLOUD_RUN)
	@$(BIN)/python -m infra.proof.checkov cdktf.out

golden: $(CLOUD) $(DEV) ## Renew what the stacks of each example are compared with; look at the diff, and commit it
	@$(BIN)/python -m pytest tests/cloud/test_golden.py --update-golden

doctor: $(CLOUD) ## Say what is between this machine and a running fleet
	@$(BIN)/spot doctor $(if $(NAMED),$(RUN)) $(ARGS)

pages: $(DEV) ## Renew the pages of docs/ that are written from the code
	@$(BIN)/python -m tests.pages

# Each is `spot NAME RUN.yaml`, which asks before it changes anything.
deploy: $(NEEDS_RUN) $(CLOUD) ## Build RUN in the cloud, and start it
	@$(BIN)/spot deploy $(RUN) $(ARGS)

diff: $(NEEDS_RUN) $(CLOUD) ## Show what a deployment of RUN would change
	@$(BIN)/spot diff $(RUN) $(ARGS)

start: $(NEEDS_RUN) $(READY) ## Give RUN's VMs back, after `make stop` or once it gave up
	@$(BIN)/spot start $(RUN) $(ARGS)

stop: $(NEEDS_RUN) $(READY) ## Take RUN's VMs away and keep all else; they save first
	@$(BIN)/spot stop $(RUN) $(ARGS)

destroy: $(NEEDS_RUN) $(CLOUD) ## Take RUN's VMs away; its bucket stays
	@$(BIN)/spot destroy $(RUN) $(ARGS)

logs: $(NEEDS_RUN) $(READY) ## Read the journal of RUN's agent, on its VM
	@$(BIN)/spot logs $(RUN) $(ARGS)

ssh: $(NEEDS_RUN) $(READY) ## Open a shell on RUN's VM
	@$(BIN)/spot ssh $(RUN) $(ARGS)

drill: $(NEEDS_RUN) $(READY) ## Have one Spot VM of RUN taken away, for real
	@$(BIN)/spot drill $(RUN) $(ARGS)

which-run:
	@echo 'Which run? Name its file: make $(firstword $(MAKECMDGOALS)) RUN=path/to/run.yaml' >&2; exit 2

validate: $(READY) ## Train RUN, hold its metrics against THRESHOLDS, and leave nothing running
	@$(BIN)/spot validate $(RUN) --thresholds $(THRESHOLDS) $(ARGS)

bench: $(DEV) ## Measure saving, restoring and noticing; write out/bench/results.json
	@$(BIN)/python -m infra.bench

# A process a core, and no more than four: each of them loads what the tests need. ARGS="-n 0" is one, for a debugger.
test: $(CLOUD) $(DEV) ## Run the fast tests
	@$(BIN)/python -m pytest -m "not slow" -n logical --maxprocesses 4 --dist worksteal $(ARGS)

# Two side by side, for most of them wait; the emulated VM before, by itself: it needs both cores. 5: none was chosen.
test-slow: $(CLOUD) $(DEV) ## Run the reality tests, which take minutes
	@status=0; $(BIN)/python -m pytest -m "slow and qemu" $(ARGS) || { status=$$?; [ $$status = 5 ] && status=0; }; \
	$(BIN)/python -m pytest -m "slow and not qemu" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS) || \
	{ others=$$?; [ $$others = 5 ] || status=$$others; }; exit $$status

scenarios: $(CLOUD) $(DEV) ## Play every scenario, or those of SHARD=i/n
	@SHARD=$(or $(SHARD),1/1) $(BIN)/python -m pytest tests/promises/test_scenarios.py $(ARGS)

strikes: $(CLOUD) $(DEV) ## Strike runs at random: STRIKES=300 of them, drawn by SEED, or those of SHARD=i/n
	@STRIKES=$(or $(STRIKES),300) SEED=$(SEED) SHARD=$(or $(SHARD),1/1) $(BIN)/python -m pytest -s tests/promises/test_strikes.py $(ARGS)

examples: $(CLOUD) $(DEV) ## Preempt every example of docs/frameworks.md three times, and compare it with itself undisturbed
	@EVERY_ROW=1 $(BIN)/python -m pytest tests/examples $(ARGS)

kinds: $(CLOUD) $(DEV) ## Cut and resume every kind of script in docs/what-resumes.md
	@EVERY_ROW=1 $(BIN)/python -m pytest tests/kinds $(ARGS)

programs: $(CLOUD) $(DEV) ## Run every program of docs/what-programs.md: under two minutes
	@EVERY_ROW=1 $(BIN)/python -m pytest tests/programs $(ARGS)

rehearsals: $(CLOUD) $(DEV) ## Rehearse every script of tests/rehearse: each fault is found, nothing is said against the others
	@EVERY_ROW=1 $(BIN)/python -m pytest tests/rehearse $(ARGS)

test-all: $(CLOUD) $(DEV) ## Run both
	@$(BIN)/python -m pytest $(ARGS)

check: $(CLOUD) $(DEV) ## Lint, format and types, without changing anything
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(DEV) ## Format, and fix what can be fixed
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

UPGRADE ?= --upgrade
COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-package torch --python $(BIN)/python $(UPGRADE)

lock: $(MADE) ## Renew the lock files; UPGRADE= keeps the versions they have
	@cat requirements.lock requirements-dev.lock requirements-cloud.lock > $(VENV)/new.lock
	@$(COMPILE) --extra workloads --extra tracking --output-file $(VENV)/new.lock pyproject.toml
	@$(BIN)/python -m infra.stacks.packages.lock $(VENV)/new.lock workloads tracking > requirements.lock
	@$(COMPILE) --constraint requirements.lock --extra dev --extra frameworks --output-file $(VENV)/new.lock pyproject.toml
	@$(BIN)/python -m infra.stacks.packages.lock --more $(VENV)/new.lock dev frameworks > requirements-dev.lock
	@$(COMPILE) --constraint requirements.lock --extra cloud --output-file $(VENV)/new.lock pyproject.toml
	@sed '/^# WARNING/,$$d' $(VENV)/new.lock > requirements-cloud.lock
	@cp requirements-checkov.lock $(VENV)/new.lock
	@$(COMPILE) --output-file $(VENV)/new.lock requirements-checkov.in
	@sed '/^# WARNING/,$$d' $(VENV)/new.lock > requirements-checkov.lock
	@rm $(VENV)/new.lock
	@! grep -nE '://|^-' requirements*.lock || { echo 'a lock file names a host' >&2; exit 1; }

clean: ## Remove .venv, caches and results
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find agent infra workloads tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
	  echo 'Name another one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'This Python can not make a virtual environment.' >&2; \
	  echo 'Debian, Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(LOCKED): requirements.lock | $(MADE)
	@echo 'Installing requirements.lock into .venv (the first time takes a minute)'
	@$(PIP) install --quiet --require-hashes -r requirements.lock
	@touch $@

$(TORCHED): | $(LOCKED)
	@echo 'Installing $(TORCH)'
	@$(PIP) install '$(TORCH)'
	@printf '%s' '$(TORCH)' > $@

$(READY): pyproject.toml $(LOCKED) $(TORCHED)
	@$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

# Without what they need: the lock is whole but for PyTorch, which is there.
$(DEV): requirements-dev.lock $(READY)
	@echo 'Installing requirements-dev.lock into .venv'
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

$(CLOUD): requirements-cloud.lock $(READY)
	@echo 'Installing requirements-cloud.lock into .venv'
	@$(PIP) install --quiet --require-hashes -r requirements-cloud.lock
	@touch $@

$(CHECKOV): requirements-checkov.lock | $(MADE)
	@echo 'Installing requirements-checkov.lock into $(@D)'
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements-checkov.lock
	@touch $@
