# make run · make test · make train NET=… DATA=… · make web · make fuzz · make results · make clean
# The first call creates a virtual environment in .venv and installs requirements.txt.

PYTHON ?= python3
NET    ?= models5
DATA   ?= sample
SPLIT  ?= person
ARGS   ?=
JOBS   ?= auto
BIN    := .venv/bin
# memory that is freed stays in the process: taking it again from the system is a quarter of the time of large networks
KEEP   := MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=4000000000

.DEFAULT_GOAL := help
.PHONY: help run test test-browser test-environments web docs fuzz train results clean

help:
	@echo "make run                              the three notebooks, end to end, into runs/latest"
	@echo "make test                             all tests, the notebooks' outputs among them"
	@echo "make test-browser                     the web page, and the notebooks in a real JupyterLab; needs Chromium and npm"
	@echo "make test-environments                the library in empty environments with other builds of OpenCV and ONNX Runtime"
	@echo "make web                              build the web page into runs/web (ARGS=--serve: and serve it); needs npm"
	@echo "make docs                             build the documentation as a site into runs/docs"
	@echo "make train NET=models5 DATA=official  train a network (SPLIT=person or official, ARGS='--epochs 20 …')"
	@echo "make fuzz                             thousands of corrupted files for each reader; killed runs"
	@echo "make results                          score saved_models/ on the official data, rewrite the tables"
	@echo "make clean                            remove .venv, runs/latest, runs/notebook2 and caches (data/ and your own runs stay)"

.venv/done: requirements.txt pyproject.toml
	@echo "setting up .venv (once, some minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; call make PYTHON=python3.12, say")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch .venv/done

run: .venv/done
	@echo "running the three notebooks, into runs/latest"
	@$(BIN)/python batch.py $(ARGS)

test: .venv/done
	@echo "running the tests, the notebooks' outputs among them (make test-browser runs those in a browser)"
	@OMP_NUM_THREADS=1 $(KEEP) $(BIN)/python -m pytest tests --ignore=tests/browser --ignore=tests/environments -n $(JOBS) --dist worksteal $(ARGS)

test-browser: .venv/done
	@echo "running the web page, and the notebooks in JupyterLab, in Chromium: some four minutes"
	@$(BIN)/python -c "import playwright, websocket" 2>/dev/null || $(BIN)/python -m pip install --quiet playwright websocket-client
	@$(BIN)/python -m pytest tests/browser -n 2 --dist loadfile $(ARGS)

test-environments: .venv/done
	@echo "installing the library into empty environments: some three minutes"
	@$(BIN)/python -m pytest tests/environments -n 2 $(ARGS)

web: .venv/done
	@$(BIN)/python -m research.web_page $(ARGS)

docs: .venv/done
	@$(BIN)/python -c "import mkdocs, mkdocstrings" 2>/dev/null || $(BIN)/python -m pip install --quiet -e ".[docs]"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet -f .github/mkdocs.yml
	@echo "built: runs/docs/index.html"

fuzz: .venv/done
	@echo "reading thousands of corrupted files"
	@FUZZ_CASES=2500 $(BIN)/python -m pytest -o faulthandler_timeout=600 tests/test_fuzz.py tests/test_interruptions.py $(ARGS)
	@if $(BIN)/python -c "import atheris" 2>/dev/null; then for reader in image table pts json archive checkpoint grid; do \
		$(BIN)/python tests/coverage_fuzz.py $$reader 5000 || exit 1; done; else echo "atheris is not installed: no search by coverage"; fi

train: .venv/done
	@echo "training $(NET) on the $(DATA) data, $(SPLIT) split"
	@$(BIN)/python train.py --net $(NET) --data $(DATA) --split $(SPLIT) $(ARGS)

results: .venv/done
	@echo "scoring saved_models/ on the official data"
	@$(BIN)/python scripts/publish.py write

clean:
	@echo "removing .venv, runs/latest, runs/notebook2 and caches"
	rm -rf .venv runs/latest runs/notebook2 .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
