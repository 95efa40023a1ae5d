#!/usr/bin/env bash
# Build the wheel, install it alone with its extras in a clean environment, and serve the built-in model from it through
# a real engine. The environment gets the pinned versions; the checkout is out of its sight.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d)"
server=""
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi; rm -rf "$work"' EXIT

"$root/.venv/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work" "$root"
wheel="$(ls "$work"/mllm_embed-*.whl)"
echo "built $(basename "$wheel"), $(($(stat -c %s "$wheel") / 1048576)) MiB"

python="${PYTHON:-python3}"
"$python" -m venv "$work/env"
pip="$work/env/bin/python -m pip install --quiet --no-compile --disable-pip-version-check"
torch="$(grep '^torch==' "$root/install/common.txt")"
$pip "$torch" -c "$root/install/common.txt" -c "$root/install/linux-cpu.txt"
$pip --no-deps -r "$root/install/common.txt" -r "$root/install/linux-cpu.txt"
$pip --no-deps "$wheel"

cd "$work"
port="$("$work/env/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
"$work/env/bin/mllm-embed" serve --port "$port" --no-demo > "$work/server.log" 2>&1 &
server=$!
for _ in $(seq 120); do
  if "$work/env/bin/python" -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/health')" 2>/dev/null; then break; fi
  if ! kill -0 "$server" 2>/dev/null; then cat "$work/server.log"; exit 1; fi
  sleep 1
done
"$work/env/bin/python" - "$port" <<'PYTHON' || { tail -40 "$work/server.log"; exit 1; }
import sys

import mllm_embed
from openai import OpenAI

if "site-packages" not in mllm_embed.__file__:
    sys.exit(f"the wheel's own package must be used, but it is {mllm_embed.__file__}")
client = OpenAI(base_url=f"http://127.0.0.1:{sys.argv[1]}/v1", api_key="none")
(model,) = [model.id for model in client.models.list().data]
answer = client.embeddings.create(model=model, input=["a red circle", "a blue square"])
print(f"{model} from the wheel: {len(answer.data)} vectors of {len(answer.data[0].embedding)}")
PYTHON
