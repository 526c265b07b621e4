#!/usr/bin/env bash
# Runs the benchmarks and keeps their figures in integration/bench/RESULTS.md.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { go test -run '^$' -bench "$2" -benchtime "${BENCHTIME:-2s}" "./$1" | grep -E '^Benchmark|^pkg'; }

out="$(mktemp)"
trap 'rm -f "$out"' EXIT
{
  run controlplane Submit
  run controlplane/xds Push
  run identity/ca Sign
  run discovery/dns 'Answer|Table'
} | tee "$out"

{
  cat <<'H'
# Results

Made by `make bench`; the last run stands here. Absolute times are of the machine that ran
it, so compare within a run. What the names mean stands at the benchmarks.

H
  echo "Machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(go env GOVERSION)"
  echo
  echo '```'
  cat "$out"
  echo '```'
} >integration/bench/RESULTS.md
