#!/usr/bin/env bash
# Passes lint, format, types and tests, from nothing. Options go to pytest, e.g. ./test.sh -m slow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./setup.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Two processes of one thread each: twice as fast on 2 cores as one of two threads.
exec env OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" .venv/bin/python -m pytest -n 2 --dist worksteal "$@"
