#!/usr/bin/env bash
# Makes the virtual environment .venv with the pinned requirements; does nothing where it is up to date.
#   ./setup.sh [requirements file]       PYTHON=python3.12 ./setup.sh picks the interpreter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
requirements="${1:-requirements.txt}"
python="${PYTHON:-python3}"

if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; then
    echo "Python 3.10 to 3.12 is needed; '$python' is $("$python" --version 2>&1 || echo absent)." \
        "Set PYTHON to one, e.g. PYTHON=python3.11 $0" >&2
    exit 1
fi
stamp=".venv/installed-$requirements"
wanted="$(cat requirements.txt "$requirements")"
if [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ]; then
    exit 0
fi
echo "Installing $requirements into .venv ..."
"$python" -m venv .venv || {
    echo "The virtual environment could not be made. On Debian and Ubuntu: apt install python3-venv" >&2
    exit 1
}
# First torch alone: a resolver that sees it together with the rest may prefer another build of it.
.venv/bin/python -m pip install --quiet "$(grep '^torch==' requirements.txt)"
.venv/bin/python -m pip install --quiet -r "$requirements"
printf '%s\n' "$wanted" >"$stamp"
