#!/usr/bin/env bash
# Trains BiPVL-Seg on the embedded phantom, from nothing: environment, data, training.
# Options go to monai.bundle, e.g. ./train.sh --max_epochs 40
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./setup.sh
cd bipvl_bundle
exec ../.venv/bin/python -m monai.bundle run training --config_file configs/train.yaml "$@"
