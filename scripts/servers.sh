#!/usr/bin/env bash
# Third-party servers for the slow tests and for benchmarks/serve.py, each in its own environment: .venvs/NAME.
# PYTHON selects the interpreter; mlserver needs one older than 3.13. The kserve environment also has the imports of
# wootz.models.
set -euo pipefail
cd "$(dirname "$0")/.."

make_one() {
  local name=$1
  shift
  [ ".venvs/$name/.ready" -nt scripts/servers.sh ] && return
  "${PYTHON:-python3}" -m venv ".venvs/$name"
  ".venvs/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
  touch ".venvs/$name/.ready"
}

make_one kserve kserve==0.21.0 torch==2.13.0 safetensors==0.8.0 tomli_w==1.2.0 numpy
make_one mlserver mlserver==1.7.1
make_one litserve litserve==0.2.19 numpy
