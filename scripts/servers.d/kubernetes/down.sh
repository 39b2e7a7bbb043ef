#!/bin/bash
# Stops everything up.sh started (by the PIDs it noted) and removes its state.
. "$(dirname "$0")/env.sh"
[ -e "$RUN" ] || exit 0
pid() { cat "$RUN/pid/$1" 2>/dev/null; }
# the state is thrown away, so nothing needs a graceful end
term() { local c p; for c in "$@"; do p=$(pid $c) && kill -9 "$p" 2>/dev/null; done
  for c in "$@"; do p=$(pid $c) || continue
    # gone, or a zombie that PID 1 has yet to reap
    for _ in $(seq 100); do s=$(awk '/^State/{print $2}' /proc/$p/status 2>/dev/null); [ -z "$s" ] || [ "$s" = Z ] && break; sleep 0.05; done; done; }
term kubelet proxy sched kcm
[ -s "$RUN/sysctl.before" ] && xargs sysctl -qw < "$RUN/sysctl.before"
if [ -S "$SOCK" ]; then
  C="timeout 20 ctr -a $SOCK -n k8s.io"
  # pod network namespaces of OUR containerd, as the containers' specs name them
  nets=$(for c in $($C containers ls -q); do $C containers info "$c"; done 2>/dev/null | grep -oh 'cni-[0-9a-f-]\{36\}' | sort -u)
  for t in $($C tasks ls -q 2>/dev/null); do $C tasks rm -f "$t" >/dev/null 2>&1; done
fi
term apiserver containerd; term etcd
# shims of OUR containerd only (their command line names our socket)
for d in /proc/[0-9]*; do
  if { tr '\0' ' ' < $d/cmdline; } 2>/dev/null | grep -q -- "containerd-shim.*-address $SOCK"; then kill -9 "${d#/proc/}" 2>/dev/null; fi
done
for n in $nets; do umount "/var/run/netns/$n" 2>/dev/null; rm -f "/var/run/netns/$n"; done
awk -v r="$RUN/" 'index($5,r)==1{print $5}' /proc/self/mountinfo | sort -r | while read -r m; do umount -l "$m"; done
ip route del $POD_CIDR 2>/dev/null
ip link del $LINK 2>/dev/null
ip netns del $NS 2>/dev/null
for s in /sys/fs/cgroup/*/kubepods; do
  [ -d "$s" ] && find "$s" -depth -type d -exec rmdir {} \; 2>/dev/null
done
case $RUN in /|/tmp|'') ;; *) rm -rf "$RUN";; esac
