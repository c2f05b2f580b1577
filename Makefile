# make repro    environment, parameters checked, all stages (what has not changed comes from the cache)
# make test     environment, all tests
# make params   compose params.yaml from conf/
# make lint     ruff
# make lock     pin the newest versions that pyproject.toml allows in requirements.txt

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro test params lint lock clean

repro: $(VENV)/installed params.yaml
	python -m pipeline.compose --check || [ $$? -eq 3 ]
	dvc repro
	@echo "Open metrics/report.html in a browser to see the answers side by side."

test: $(VENV)/installed
	# two workers, one thread each: with more threads than cores they wait for each other
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

params: $(VENV)/installed
	python -m pipeline.compose

params.yaml: | $(VENV)/installed
	python -m pipeline.compose

lint: $(VENV)/installed
	ruff check . && ruff format --check .

$(VENV)/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

lock:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > $(VENV)/direct.txt
	python -m pip install --quiet --requirement $(VENV)/direct.txt
	{ echo "# Written by make lock from pyproject.toml."; python -m pip freeze | sed "s/^torch==.*/torch==2.13.0/; s/^torch @.*/torch==2.13.0/"; } > requirements.txt
	touch $(VENV)/installed

clean:
	rm -rf $(VENV) .checkpoints
