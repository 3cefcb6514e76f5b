#!/usr/bin/env bash
# Passes lint, format, types and tests, from nothing. Options go to pytest, e.g. ./test.sh -m slow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./setup.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
