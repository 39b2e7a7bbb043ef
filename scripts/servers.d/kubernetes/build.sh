#!/bin/bash
# build.sh [FOLDER]: builds one static binary of etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet,
# kube-proxy and kubectl from their Go modules, by default into the cache; once. Ten minutes of processor time, 144 MB.
set -euo pipefail
. "$(dirname "$0")/env.sh"
out=$(mkdir -p "${1:-$BIN}" && cd "${1:-$BIN}" && pwd)
[ -e "$out/kubectl" ] && exit 0
exec 9>"$out/.lock" && flock 9 && [ ! -e "$out/kubectl" ] || exit 0   # two runs of tests build it once
ver=v1.36.3
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-mod=readonly -p=2 -buildvcs=false"
x=k8s.io/component-base/version
y=k8s.io/client-go/pkg/version
ld="-s -w"
for p in $x $y; do
  ld="$ld -X $p.gitVersion=$ver -X $p.gitMajor=1 -X $p.gitMinor=36 -X $p.gitTreeState=clean -X $p.buildDate=2026-01-01T00:00:00Z"
done
cd "$here/src"
go build -trimpath -ldflags "$ld" -o "$out/hyperkube" .
for c in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
  ln -sf hyperkube "$out/$c"
done
