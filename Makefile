# Everything runs from .venv, which is made on first use; by hand, use any environment with the same install line.
PYTHON ?= python3
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: repro compare study test test-slow lint constraints

# Ends with what was forgotten, what was kept, compared with what, where the report is, and how long it took.
repro: .venv/installed
	@start=$$(date +%s) && $(RUN) dvc repro && $(RUN) python stages/summary.py $$(($$(date +%s) - start))

# Every identifier that can run here, on the benchmark of the last run: metrics/identifiers.html; options go into ARGS.
compare: .venv/installed
	$(RUN) python bench/analysis/identifiers.py $(ARGS)

# Every method on three seeds, as experiments; bench/study/study.py says more, and ARGS names other groups of them.
study: .venv/installed
	$(RUN) python bench/study/study.py run $(ARGS)

test: .venv/installed
	$(RUN) pytest -n 2 --dist worksteal

test-slow: .venv/installed
	$(RUN) pytest -n 2 --dist worksteal -m slow

lint: .venv/installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .

.venv/installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/pip install -c constraints.txt -e '.[test]'
	touch .venv/installed

# Pins what a fresh environment resolves to within pyproject.toml's ranges. The build tag of torch (+cpu, +cu128) is
# left out, so that every platform takes its own build of the same version.
constraints:
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install -q -e '.[test]'
	build/constraints/bin/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > constraints.txt
	rm -rf build/constraints
