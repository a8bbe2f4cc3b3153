# make run · make test · make train NET=… DATA=… · make results · make clean
# The first call of any of them makes a virtual environment in .venv with what requirements.txt lists.

PYTHON ?= python3
NET    ?= models4
DATA   ?= sample
SPLIT  ?= person
ARGS   ?=
BIN    := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run test train results clean

help:
	@echo "make run                              the three notebooks, end to end, into runs/latest"
	@echo "make test                             all tests, the notebooks' outputs among them"
	@echo "make train NET=models4 DATA=official  train a network (SPLIT=person or official, ARGS='--epochs 20 …')"
	@echo "make results                          score saved_models/ on the official data, rewrite the tables"
	@echo "make clean                            remove .venv, runs and caches (data/ stays)"

.venv/done: requirements.txt
	@echo "setting up .venv (once, some minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; call make PYTHON=python3.12, say")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch .venv/done

run: .venv/done
	@$(BIN)/python batch.py $(ARGS)

test: .venv/done
	@$(BIN)/python -m pytest $(ARGS)

train: .venv/done
	@$(BIN)/python train.py --net $(NET) --data $(DATA) --split $(SPLIT) $(ARGS)

results: .venv/done
	@$(BIN)/python results.py write

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
