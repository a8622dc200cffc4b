# make demo   train a VAE on real images and look at its report        make test   run the tests
# make lint   ruff, as the pre-commit hooks run it                     make test-slow   and the long ones
# make clean  remove .venv and runs/demo
# make bench  time everything beside its peers (about half an hour), write the tables of docs, draw docs/growth.svg
#
# PYTHON=python3.12 make test   takes another interpreter
# PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"   takes torch's CPU build from PyTorch's own index

PYTHON ?= python3.11
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Bytecode is made where a module is first imported, as most modules of torch and JAX never are; and kept,
# whatever the environment says: without it every process compiles its imports anew.
export PYTHONDONTWRITEBYTECODE =
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile $(PIP_ARGS) -c constraints/cpu.txt
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
DEMO := runs/demo
PEERS := $(VENV)/.peers
BENCHMARKS := steps epochs deep codes jax_steps process evaluation memory growth formats profiles first_steps

.PHONY: install demo test test-slow lint bench clean

install: $(STAMP)

# torch goes first and alone, so that its build (CPU or CUDA) is settled before anything depends on it.
$(STAMP): pyproject.toml constraints/cpu.txt
	@echo "Installing into $(VENV): about a minute, and the downloads"
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[numpyro,notebooks,tables,singlecell,tensorboard,onnx,dev]'
	touch $@

demo: $(STAMP)
	rm -rf $(DEMO)
	$(BIN)/ppl-vae train vae --data digits --epochs 30 --out $(DEMO)
	$(BIN)/ppl-vae evaluate $(DEMO) --importance-samples 100
	$(BIN)/ppl-vae sample $(DEMO)
	$(BIN)/ppl-vae reconstruct $(DEMO)
	@echo "The report: $(abspath $(DEMO))/report.html"

# Two worker processes of one thread each: faster on 2 cores than one process of two threads.
test: $(STAMP)
	$(TEST) -m "not slow" tests

test-slow: $(STAMP)
	$(TEST) -m slow tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# On an idle machine: two busy processes on two cores slow each other down many times.
bench: $(PEERS)
	for name in $(BENCHMARKS); do \
		$(BIN)/python benchmarks/$$name.py --out benchmarks/results/$$name.json || exit 1; \
	done
	$(BIN)/python benchmarks/plot.py
	$(BIN)/python benchmarks/tables.py

# pythae asks for a backport of a module of the standard library: all else that it needs is installed first.
$(PEERS): $(STAMP)
	$(PIP) -e '.[bench]'
	$(PIP) --no-deps pythae==0.1.2
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
