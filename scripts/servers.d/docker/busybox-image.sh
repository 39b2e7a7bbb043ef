#!/bin/bash
# busybox-image.sh SOCKET [TAG] : a 2 MB image of Debian's busybox-static; no registry
set -eu
SOCK=$1; TAG=${2:-busybox:local}; R=$(mktemp -d)
mkdir -p "$R"/{bin,etc,tmp,proc,sys,dev,root,var/tmp,usr/bin}; chmod 1777 "$R/tmp"
cp "$(command -v busybox)" "$R/bin/busybox"
for a in $("$R/bin/busybox" --list); do [ "$a" = busybox ] || ln -s busybox "$R/bin/$a"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$R/etc/passwd"; echo 'nobody:x:65534:65534::/:/bin/false' >>"$R/etc/passwd"; echo 'root:x:0:' >"$R/etc/group"
tar -C "$R" --numeric-owner --owner=0 --group=0 -cf - . | docker -H "unix://$SOCK" import -c 'ENV PATH=/bin:/usr/bin' -c 'CMD ["/bin/sh"]' - "$TAG"
rm -rf "$R"
