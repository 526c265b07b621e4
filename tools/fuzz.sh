#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time, two at once. When the time is up
# while a worker is busy, go test may report "context deadline exceeded" and nothing else:
# that is the end of the time, no finding. A finding always names the input it wrote.
set -euo pipefail
cd "$(dirname "$0")/.."
time="${1:-60s}"

targets="$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's|^\./(.*)/[^/]+:func (Fuzz.*)|\1 \2|' | sort)"
echo "$targets" | xargs -P 2 -L 1 bash -c '
  out="$(go test -run "^$" -fuzz "^$2\$" -fuzztime "$0" -parallel 1 -fuzzminimizetime 1x "./$1" 2>&1)" || {
    said="$(echo "$out" | sed -n "/^--- FAIL/,/^FAIL/p" | grep -vE "^(--- FAIL: $2 |FAIL)" | tr -d " ")"
    [ "$said" = contextdeadlineexceeded ] || { echo "$out"; echo "FAIL $1 $2"; exit 255; }
  }
  echo "ok   $1 $2: $(echo "$out" | grep -o "execs: [0-9]*" | tail -n 1)"
' "$time"
