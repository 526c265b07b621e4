#!/usr/bin/env bash
# Runs the benchmarks and keeps their figures in integration/bench/RESULTS.md. It takes
# about five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# section TITLE TEXT begins a part of the results.
section() { printf '\n## %s\n\n%s\n' "$1" "$2" | tee -a "$work/results"; }

# run PACKAGE BENCHMARK adds a block with a line for each benchmark.
run() {
  if ! go test -run '^$' -bench "$2" -benchtime "${BENCHTIME:-1s}" "./$1" >"$work/out" 2>&1; then
    cat "$work/out" >&2
    return 1
  fi
  {
    printf '\n```\n'
    awk '
      /^Benchmark/ && NF > 3 {
        sub(/^Benchmark/, "", $1); sub(/-[0-9]+$/, "", $1)
        line = sprintf("%-32s", $1)
        for (i = 3; i < NF; i += 2) line = line sprintf("  %s %s", $i, $(i + 1))
        print line; n++
      }
      END { if (!n) print "skipped: needs root" }' "$work/out"
    printf '```\n'
  } | tee -a "$work/results"
}

section "Requests by way of two sidecars" \
"A client calls a server through both of their Envoys, with mutual TLS, an authorization
policy, metrics, access logs and traces of 1 % on, and directly, in the same network
namespaces and in turns; medians of five turns. HTTP/1.1 with answers of 1 KiB, or 64 bytes
back and forth over TCP, on 16 connections. With a rate latency counts from when a request
was due. \`proxy-us/req\` is what both Envoys together take of the processor; a request costs
less the more of them there are. \`idle\` is before any load, of the control plane, an
agent and its Envoy; what is not anonymous are pages of the program's file, which all
processes of one program share."
run integration/bench Sidecars

section "One Envoy: the internal listener, and pushes" \
"\`captured\` goes through the capture listener and the internal listener with the routes,
\`explicit\` through a listener that has the routes itself; same Envoy, same upstream, and
the caller's Envoy alone is counted. The pushes are from the object to that Envoy's ACK."
run integration/bench Envoy

section "A control plane with 200 proxies" \
"1,000 services with two endpoints and a route each; 200 simulated proxies in a process of
their own, over TCP with mutual TLS. \`all\`: each holds all services, as now; \`10-used\`:
each holds ten, and twenty proxies hold the service that changes. Times of pushes are from
the object to the last ACK, with the proxies on the same cores. \`reconnect\` is with what
they held before, until a change reaches all; so is \`cold\`, with nothing. Processor time and memory are the control plane's."
run integration/bench ControlPlane

section "DNS over UDP" \
"10,000 services, the client in another process; processor time is the server's. \`packed\`
answers are made beforehand, \`whole\` ones are not. With one query at a time every one
wakes the server up."
run integration/bench Names

section "Parts by themselves" \
"A change from its object to the cache; a push to simulated proxies in the same process,
whose processor time counts too; a certificate; an answer of the DNS server and a change
of its table."
run controlplane Submit
run controlplane/xds Push
run identity/ca Sign
run discovery/dns 'Answer|Table'

{
  cat <<H
# Results

Made by \`make bench\`; the last run stands here. Absolute times are of the machine that ran
it, so compare within a run.

Machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(go env GOVERSION)
H
  cat "$work/results"
} >integration/bench/RESULTS.md
