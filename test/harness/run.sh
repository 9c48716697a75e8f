#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs go-control-plane's integration harness with sidecar in Envoy's place. See
# README.md. Exit status: 0 if every mode passed, 1 if one failed, 2 if it could
# not be run.
set -o errexit -o nounset -o pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
modes=("$@")
[ ${#modes[@]} -gt 0 ] || modes=(ads xds rest delta delta-ads)
limit=${HARNESS_TIMEOUT:-150}
message=$'Hi, there!\n'

work=$(mktemp -d "${TMPDIR:-/tmp}/outrigger-harness.XXXXXX")
pids=()
end() {
  local p
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  pids=()
}
cleanup() {
  end
  [ -n "${KEEP_LOGS:-}" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

module=$(cd "$root" && go list -m -f '{{.Dir}}' github.com/envoyproxy/go-control-plane)
[ -d "$module/pkg/test/main" ] || { echo "harness: module sources not found: run 'go mod download'" >&2; exit 2; }

# The mains are built from a copy: one is internal to its module, the module cache
# is read-only, and its go.mod points at folders that the module does not have.
# The copy is built with the versions that this repository pins.
cp -r "$module" "$work/src"
chmod -R u+w "$work/src"
mkdir -p "$work/bin" "$work/logs"
(
  cd "$work/src"
  export GOFLAGS=-mod=mod GOWORK=off
  {
    echo "module github.com/envoyproxy/go-control-plane"
    echo "go 1.26.0"
    echo "require github.com/envoyproxy/go-control-plane/ratelimit v0.1.0"
    (cd "$root" && go mod edit -print) | awk '
      /^require \(/ { inside = 1; next }
      /^\)/ { inside = 0 }
      inside && NF >= 2 { print "require", $1, $2 }
      /^require [^(]/ { print $1, $2, $3 }' |
      grep -v ' github.com/envoyproxy/go-control-plane v' || true
  } >go.mod
  cat "$root/go.sum" >>go.sum
  go build -o "$work/bin/test" ./pkg/test/main
  go build -o "$work/bin/upstream" ./internal/upstream
) || { echo "harness: its programs cannot be built" >&2; exit 2; }

sidecar=${SIDECAR:-}
if [ -z "$sidecar" ]; then
  (cd "$root" && go run -exec cp ./cmd/sidecar "$work/bin/sidecar") || exit 2
  sidecar=$work/bin/sidecar
fi
sidecar=$(realpath "$sidecar")
[ -x "$sidecar" ] || { echo "harness: $sidecar is no program" >&2; exit 2; }

# busy reports whether something listens on a port of the harness.
busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

failed=0
printf '%-10s %-7s %s\n' MODE RESULT SECONDS
for mode in "${modes[@]}"; do
  for port in 18000 18001 18080 18090 19000 9000; do
    for _ in $(seq 50); do busy "$port" || break; sleep 0.1; done
    if busy "$port"; then echo "harness: port $port is in use" >&2; exit 2; fi
  done
  runtimes=1
  [ "$mode" != ads ] || runtimes=2
  start=$SECONDS
  "$work/bin/upstream" -message="$message" >"$work/logs/$mode.upstream" 2>&1 &
  pids+=($!)
  mkdir -p "$work/data-$mode"
  # The flags are those that the harness gives to Envoy.
  (cd "$work/data-$mode" && exec "$sidecar" -c "$work/src/sample/bootstrap-$mode.yaml" --drain-time-s 1 -l debug) \
    >"$work/logs/$mode.sidecar" 2>&1 &
  pids+=($!)
  # The harness counts a mode as passed when every listener has answered in one
  # round of each version.
  if timeout "$limit" "$work/bin/test" --xds="$mode" --runtimes="$runtimes" -debug -message="$message" >"$work/logs/$mode.harness" 2>&1; then
    result=pass
  else
    result=FAIL
    failed=1
    KEEP_LOGS=1
  fi
  end
  printf '%-10s %-7s %s\n' "$mode" "$result" "$((SECONDS - start))"
  if [ "$result" = FAIL ]; then
    echo "  logs: $work/logs/$mode.*" >&2
    grep -h "request batch\|failed all\|timeout" "$work/logs/$mode.harness" | tail -5 >&2 || true
  fi
done
exit "$failed"
