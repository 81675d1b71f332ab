# The front door. Everything happens in .venv; PYTHON chooses the interpreter (3.10 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint types fast slow chaos docs bench clean

help:
	@echo "make demo   install, then search a distiller on generated images (about five minutes on two cores)"
	@echo "make test   install with the development extra; lint, floors, types, tests"
	@echo "make lint | types | fast | slow   the parts of make test"
	@echo "make chaos  strike a real search by 200 random faults and read 20,000 random files (about 40 minutes on two cores)"
	@echo "make docs   build the documentation as a site, in site/"
	@echo "make bench  compare samplers on the recorded table of distillers (about nine minutes on two cores)"

# torch and torchvision go in together and first, so that their builds match.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --quiet --editable '.[dev,mmdet]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/autokd search search_spaces/quickstart.yaml

test: lint types fast slow

lint: $(VENV)/installed-dev
	$(BIN)/ruff check autokd dashboard tests experiments docs examples integrations
	$(BIN)/ruff format --check autokd dashboard tests experiments docs examples integrations
	$(BIN)/lint-imports

types: $(VENV)/installed-dev
	$(BIN)/mypy

fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow and not ray and not cluster" -n 2 --dist loadfile

# A file's tests stay in one process (loadfile): its fixtures, whole searches among them, are made once.
# Ray's tests start clusters that want both cores: one after the other.
slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "slow and not ray and not cluster" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m ray

# Faults over a real search, and random inputs; both go on where they were cut off. Two processes, one for each core.
CHAOS ?= 200
FUZZ ?= 20000
SEED ?= 1
chaos: $(VENV)/installed-dev
	mkdir -p build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos -m cluster
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=explore AUTOKD_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz -n 2
	for part in 0 1; do OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --count $(CHAOS) --seed $(SEED) --part $$part/2 \
		--record build/chaos-$(SEED)-$$part.jsonl > build/chaos-$(SEED)-$$part.log & pids="$$pids $$!"; done; \
		rc=0; for pid in $$pids; do wait $$pid || rc=1; done; tail -n 20 build/chaos-$(SEED)-?.log; exit $$rc

docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

PAIRS := $(wildcard experiments/pairs/records/*.jsonl.gz)

bench: $(VENV)/installed
	$(BIN)/autokd benchmark compare experiments/distiller_benchmark/table.jsonl.gz
	$(if $(word 2,$(PAIRS)),$(BIN)/autokd benchmark strategies $(PAIRS))

clean:
	rm -rf $(VENV) build dist site *.egg-info
