# make repro    environment, parameters checked, all stages (unchanged ones come from the cache)
# make test     environment, all tests
# make check    lint, types and the fast tests, in under a minute: for daily use
# make docs     the documentation as a site, in docs/_build/html
# make params   compose params.yaml from conf/
# make lint     ruff
# make lock     pin the newest versions that pyproject.toml allows in requirements.txt and requirements-dev.txt

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
PYTEST := OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 10

.PHONY: repro test check lint docs params lock clean

repro: $(VENV)/installed params.yaml
	python -m pipeline.compose --check || [ $$? -eq 3 ]
	dvc repro
	@echo "Open metrics/report.html in a browser to see the answers side by side."

test: $(VENV)/installed-dev
	# two workers with one thread each: more threads than cores slow each other down
	$(PYTEST)

check: $(VENV)/installed-dev lint
	mypy
	$(PYTEST) -m "not slow"

lint: $(VENV)/installed-dev
	ruff check .
	ruff format --check .

docs: $(VENV)/installed-dev
	sphinx-build -W --keep-going -n -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html in a browser."

params: $(VENV)/installed
	python -m pipeline.compose

params.yaml: | $(VENV)/installed
	python -m pipeline.compose

$(VENV)/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	touch $@

lock:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	python .ci/lock
	touch $(VENV)/installed $(VENV)/installed-dev

clean:
	rm -rf $(VENV) .checkpoints docs/_build
