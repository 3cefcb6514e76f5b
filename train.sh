#!/usr/bin/env bash
# Trains BiPVL-Seg on the embedded phantom, from nothing: environment, data, training.
# Options go to monai.bundle, e.g. ./train.sh --max_epochs 40
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./setup.sh
cd bipvl_bundle
# MONAI warns of every config that it parses; these are the repository's own.
exec ../.venv/bin/python -W "ignore:parsing config_file:UserWarning" -m monai.bundle run training --config_file configs/train.yaml "$@"
