# The main process of a container that runs a script. Arguments:
#   $1 begins the line, on both streams, that says "ended: EXIT_CODE:MEMORY_KILLS:RESULTS"; RESULTS are letters: o for
#      outputs, r for results, c for curl and what else it takes to move files by it, t where TERM came, by which the
#      cluster ends containers
#   $2 the working directory    $3 "in": wait until the inputs are there
#   $4 seconds that the after_script may take
#   $5 how many arguments make up the script; these arguments; then those of the after_script
# Afterwards it waits for TERM, so that what it leaves can be collected. USR1 ends the script only.
home=/formicary mark=$1 work=$2 in=$3 limit=$4 count=$5
shift 5
umask 022
echo $$ >"$home/pid" && mkdir -p "$home/result" "$home/tmp" "$work" && cd "$work" || exit 125
while [ "$count" -gt 0 ]; do
  printf %s "$1"
  shift
  count=$((count - 1))
done >"$home/script.sh" || exit 125
printf %s "$@" >"$home/after.sh" || exit 125

nap() { sleep 0.1 2>/dev/null || sleep 1; }
# Signals come to this process alone; it passes them on to everything else in the container.
stop() {
  stopped=1
  kill -TERM -1 2>/dev/null
}
leave() {
  left=1
  stop
}
# A shell that waits for a child in the background hears signals meanwhile.
run() {
  sh -e "$1" </dev/null &
  child=$!
  while :; do
    wait "$child" 2>/dev/null
    code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  # The last wait may have ended by a signal, and some shells have the child's own code then.
  wait "$child" 2>/dev/null
  last=$?
  [ "$last" -eq 127 ] || code=$last
  return "$code"
}
memory_kills() {
  for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$file" ] || continue
    while read -r word number; do
      [ "$word" != oom_kill ] || echo "$number"
    done <"$file"
    return
  done
}
stopped= left=
trap stop USR1
trap leave TERM

if [ "$in" = in ]; then
  until [ -e "$home/in" ] || [ "$stopped" ]; do nap; done
fi
result=143
if [ -z "$stopped" ]; then
  run "$home/script.sh"
  result=$?
fi
# A kill of everything spares the process that does it, and the container's first, which may be that of an entrypoint:
# so it is for this one to do, whoever finds that it is time.
late=
end_after() {
  if [ "$late" ]; then
    kill -KILL -1 2>/dev/null
    return
  fi
  late=1
  echo "after_script was ended: it took longer than $limit s" >&2
  kill -TERM -1 2>/dev/null
}
watch_after() {
  trap '' TERM
  sleep "$limit"
  kill -USR2 $$
  nap
  kill -USR2 $$
}
if [ -s "$home/after.sh" ]; then
  kill -KILL -1 2>/dev/null
  trap end_after USR2
  watch_after </dev/null &
  run "$home/after.sh"
  after=$?
  trap '' USR2
  [ "$after" -eq 0 ] || echo "after_script ended with exit code $after" >&2
fi
kill -KILL -1 2>/dev/null
results=
[ ! -s "$home/output" ] || results=o
[ -z "$(ls -A "$home/result" 2>/dev/null)" ] || results=${results}r
if command -v curl && command -v sha256sum && command -v find; then results=${results}c; fi >/dev/null
[ -z "$left" ] || results=${results}t
printf '\036%s:%s:%s:%s\n' "$mark" "$result" "$(memory_kills)" "$results"
printf '\036%s:%s:%s:%s\n' "$mark" "$result" "$(memory_kills)" "$results" >&2
until [ "$left" ]; do nap; done
exit "$result"
