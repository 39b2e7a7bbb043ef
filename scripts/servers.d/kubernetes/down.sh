#!/bin/bash
# Ends the cluster, and takes away all that it or one that was killed left. Its state is thrown away, so nothing is
# ended gracefully.
. "$(dirname "$0")/env.sh"

# Processes of ours, by what they are: the id that was noted for one may be somebody else's by now. The parts live in
# the network namespace, containerd's helpers name its folder, and what runs in a container has its root there.
ours() {
  ip netns pids $NS 2>/dev/null
  grep -lsz "^$RUN/containerd" /proc/[0-9]*/cmdline | cut -d/ -f3
  grep -ls " / / .*=$RUN/containerd/" /proc/[0-9]*/mountinfo | cut -d/ -f3
}
for _ in $(seq 200); do
  ids=$(ours)
  [ -n "$ids" ] || break
  kill -9 $ids 2>/dev/null
  sleep 0.05
done
[ -s "$RUN/sysctl.before" ] && xargs sysctl -qw < "$RUN/sysctl.before"

# What containerd keeps outside its folder: network namespaces of pods, state of runc, sockets of shims.
pods() { ip -n $NS link 2>/dev/null; cat "$RUN"/containerd/root/*.metadata.*/meta.db 2>/dev/null; }
for n in $(pods | grep -ao 'cni-[0-9a-f-]\{36\}' | sort -u); do
  umount "/run/netns/$n" 2>/dev/null; rm -f "/run/netns/$n"
done
for d in "$RUN"/containerd/state/*.task/k8s.io/*/; do
  [ -e "$d/address" ] && { s=$(cat "$d/address"); rm -f "${s#unix://}"; rm -rf "/run/containerd/runc/k8s.io/$(basename "$d")"; }
done
awk -v r="$RUN/" 'index($5,r)==1{print $5}' /proc/self/mountinfo | sort -r | while read -r m; do umount -l "$m"; done
ip route del $POD_CIDR dev $LINK 2>/dev/null
ip link del $LINK 2>/dev/null
ip netns del $NS 2>/dev/null; rm -f "/run/netns/$NS"
for s in /sys/fs/cgroup/{,*/}kubepods; do
  [ -d "$s" ] && find "$s" -depth -type d -exec rmdir {} \; 2>/dev/null
done
case $RUN in /|/tmp|'') ;; *) rm -rf "$RUN";; esac
