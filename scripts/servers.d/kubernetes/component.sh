#!/bin/bash
# component.sh kill|start NAME: ends one part of the running cluster as a crash would, or starts it again as it was.
# Names: apiserver etcd kcm sched kubelet proxy containerd
set -euo pipefail
. "$(dirname "$0")/env.sh"
case $1 in
  kill)
    pid=$(cat "$RUN/pid/$2")
    kill -9 "$pid"
    # Gone, or a zombie that PID 1 has yet to reap, and none of its threads holds its sockets any more.
    while state=$(awk '/^State/{print $2}' "/proc/$pid/status" 2>/dev/null) && [ -n "$state" ]; do
      [ "$state" = Z ] && [ "$(ls "/proc/$pid/task" 2>/dev/null | wc -l)" -le 1 ] && break
      sleep 0.02
    done ;;
  start)
    setsid nohup bash -c "exec $(cat "$RUN/command/$2")" >>"$RUN/log/$2.log" 2>&1 </dev/null &
    echo $! >"$RUN/pid/$2" ;;
esac
