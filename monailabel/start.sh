#!/usr/bin/env bash
# Serves a bundle to MONAI Label clients, such as 3D Slicer; makes the server's environment the first time.
#
#   monailabel/start.sh STUDIES [BUNDLE] [--port 8000] [--host 127.0.0.1] [--auto-score]
#
# STUDIES: a folder of NIfTI images; labels that are submitted go to its subfolder labels/.
# BUNDLE: a bundle's folder with a trained models/model.pt; by default bipvl_bundle.
# --auto-score: score the unlabelled images by uncertainty at the start, after each training and each next sample.
# PYTHON=python3.12 picks the interpreter; BIPVL_MONAILABEL_VENV a place for the environment, or one that is there.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="${BIPVL_MONAILABEL_VENV:-$here/../.venv-monailabel}"

fail() {
    echo "$*" >&2
    exit 1
}

usage() {
    fail "$1 Usage: $0 STUDIES [BUNDLE] [--port 8000] [--host 127.0.0.1] [--auto-score]"
}

read_arguments() {
    port=8000 host=127.0.0.1 auto_score=false folders=()
    while [ $# -gt 0 ]; do
        case "$1" in
        --port | --host)
            [ $# -gt 1 ] || usage "$1 needs a value."
            [ "$1" = --port ] && port="$2" || host="$2"
            shift
            ;;
        --auto-score) auto_score=true ;;
        -*) usage "There is no option '$1'." ;;
        *) folders+=("$1") ;;
        esac
        shift
    done
    [ ${#folders[@]} -ge 1 ] || usage "The folder of images is missing."
    [ ${#folders[@]} -le 2 ] || usage "Two folders at most are expected, found ${#folders[@]}."
    [[ "$port" =~ ^[0-9]+$ ]] || usage "--port needs a number, found '$port'."
}

check_folders() {
    [ -d "${folders[0]}" ] || fail "There is no folder '${folders[0]}'; give the folder that holds the images."
    [ -w "${folders[0]}" ] || fail "'${folders[0]}' cannot be written; submitted labels are kept in it."
    studies="$(cd "${folders[0]}" && pwd)"
    local given="${folders[1]:-$here/../bipvl_bundle}"
    [ -d "$given" ] || fail "There is no bundle folder '$given'."
    bundle="$(cd "$given" && pwd)"
    model="$(basename "$bundle")"
    config="$(ls "$bundle"/configs/inference.{json,yaml} 2>/dev/null | head -n 1 || true)"
    [ -n "$config" ] || fail "'$bundle' is no bundle: it has no configs/inference.yaml or inference.json."
    [ -f "$bundle/models/model.pt" ] ||
        fail "'$bundle' has no trained model: models/model.pt is absent. Train one (./train.sh), or give a released bundle."
    [[ "$model" =~ ^[A-Za-z0-9_.-]+$ ]] ||
        fail "The folder's name '$model' becomes the name of the model; rename it to letters, digits, '_', '-' and '.'."
}

make_environment() {
    local stamp="$venv/installed" wanted
    wanted="$(cat "$here/requirements.txt")"
    [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ] && return
    if [ ! -e "$stamp" ] && [ ! -e "$venv/unfinished" ] && "$venv/bin/python" -c 'import importlib.metadata as m, sys
pins = [line.split()[0].split("==") for line in open(sys.argv[1]) if "==" in line and not line.startswith("#")]
sys.exit(any(m.version(name) != version for name, version in pins))' "$here/requirements.txt" 2>/dev/null; then
        return # made by hand
    fi
    local python="${PYTHON:-python3}"
    "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null ||
        fail "Python 3.10 to 3.12 is needed; '$python' is $("$python" --version 2>&1 || echo absent). Set PYTHON to one."
    echo "Installing MONAI Label into $venv (4 GB, once) ..."
    "$python" -m venv "$venv" || fail "The environment could not be made. On Debian and Ubuntu: apt install python3-venv"
    rm -f "$stamp"
    touch "$venv/unfinished"
    # First torch alone: a resolver that sees it together with the rest may prefer another build of it.
    "$venv/bin/python" -m pip install --quiet "$(grep '^torch==' "$here/requirements.txt")"
    "$venv/bin/python" -m pip install --quiet -r "$here/requirements.txt"
    printf '%s\n' "$wanted" >"$stamp"
    rm "$venv/unfinished"
}

check_port() {
    "$venv/bin/python" -c 'import socket, sys; socket.create_server((sys.argv[1], int(sys.argv[2]))).close()' \
        "$host" "$port" 2>/dev/null || fail "Port $port of $host cannot be opened: it is in use, or not allowed. Choose another --port."
}

make_app() {
    venv="$(cd "$venv" && pwd)"
    app="$venv/apps/$model-$port"
    rm -rf "$app/guard"
    mkdir -p "$app/model" "$app/work"
    cp -r "$here/app/main.py" "$here/app/guard" "$app"
    cp "$here/../bipvl_bundle/scripts/trust/plain.py" "$here/../bipvl_bundle/scripts/trust/digests.py" "$app/guard"
    ln -sfn "$bundle" "$app/model/$model"
}

read_arguments "$@"
check_folders
make_environment
check_port
make_app

options=(--conf models "$model" --conf zoo_source local --conf sam2 false)
if grep -q "scripts.networks.bipvl_seg.BiPVLSeg" "$config"; then # others have no dropout to score by
    options+=(--conf epistemic_model "$model")
fi
export PATH="$venv/bin:$PATH" PYTHONPATH="$here/site:$app${PYTHONPATH:+:$PYTHONPATH}"
export MONAI_LABEL_AUTO_UPDATE_SCORING="$auto_score"
echo "Serving $model, images and labels in $studies, at http://$host:$port"
cd "$app/work" # a folder without anything that the name of an image could be mistaken for
exec "$venv/bin/python" -m monailabel.main start_server --app "$app" --studies "$studies" --uvicorn_app guard.server:app \
    --host "$host" --port "$port" "${options[@]}"
