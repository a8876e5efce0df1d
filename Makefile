# `make demo` trains, scores and films an Atari agent, `make demo-connect-four` a player of Connect
# Four; `make test` checks everything.
PYTHON ?= python3
BIN := .venv/bin

demo: .venv/installed
	$(BIN)/rlplay train road_runner/dqn

demo-connect-four: .venv/installed
	$(BIN)/rlplay train connect_four/alphazero

test: .venv/installed
	$(BIN)/python -m pytest -n auto --dist loadfile

# The pinned set, again whenever it changed.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlplay needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.PHONY: demo demo-connect-four test
