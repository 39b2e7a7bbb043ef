#!/bin/bash
# Makes the images of the cluster, once: pause, from C, and busybox, from the machine's static one.
set -euo pipefail
. "$(dirname "$0")/env.sh"
[ -e "$IMAGES/.complete" ] && exit 0
mkdir -p "$IMAGES"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/pause "$work"/busybox/{bin,etc,tmp,root,proc,sys,dev,var}
gcc -Os -static -s -o "$work/pause/pause" "$here/images/pause.c"
python3 "$here/images/mkimage.py" "$work/pause" localhost/pause:1 "$IMAGES/pause.tar" --entrypoint '["/pause"]'
cp "$(command -v busybox)" "$work/busybox/bin/busybox"
for applet in $("$work/busybox/bin/busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$work/busybox/bin/$applet"
done
chmod 1777 "$work/busybox/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$work/busybox/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$work/busybox/etc/group"
python3 "$here/images/mkimage.py" "$work/busybox" localhost/busybox:1 "$IMAGES/busybox.tar" --cmd '["sh"]'
touch "$IMAGES/.complete"
