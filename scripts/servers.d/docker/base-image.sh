#!/bin/bash
# base-image.sh SOCKET [TAG] : image with the HOST's python3 (pyenv or /usr), its shared libraries and busybox; no apt, no registry
set -eu
SOCK=$1; TAG=${2:-hostpython:local}; R=$(mktemp -d)
PY=$(python3 -c 'import sys,os;print(os.path.realpath(sys.executable))'); PFX=$(python3 -c 'import sys;print(sys.base_prefix)'); VER=$(python3 -c 'import sys;print("python%d.%d"%sys.version_info[:2])')
mkdir -p "$R"/{bin,etc/ssl/certs,tmp,proc,sys,dev,root,lib64,usr/bin}; chmod 1777 "$R/tmp"
cp /bin/busybox "$R/bin/"; for a in $(/bin/busybox --list); do [ "$a" = busybox ] || ln -s busybox "$R/bin/$a"; done
mkdir -p "$R$PFX/bin" "$R$PFX/lib"; cp "$PY" "$R$PFX/bin/"; ln -sf "$(basename "$PY")" "$R$PFX/bin/python3"; ln -sf python3 "$R$PFX/bin/python"
tar -C "$PFX/lib" --exclude=__pycache__ --exclude="$VER/test" --exclude="$VER/config-*" --exclude="$VER/site-packages/*" --exclude="$VER/idlelib" --exclude="$VER/tkinter" --exclude='*.a' -cf - "$VER" $(cd "$PFX/lib"; ls -d libpython*.so* 2>/dev/null || true) | tar -C "$R$PFX/lib" -xf -
{ ldd "$PY"; find "$PFX/lib/$VER/lib-dynload" -name '*.so' -exec ldd {} +; } 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' | grep -v : | sort -u | while read -r l; do [ -e "$R$l" ] || { mkdir -p "$R$(dirname "$l")"; cp -L "$l" "$R$l"; }; done
for l in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2 libgcc_s.so.1 libstdc++.so.6 libpthread.so.0 libdl.so.2 librt.so.1 libm.so.6; do f=$(ldconfig -p | awk -v l=$l '$1==l{print $NF;exit}'); [ -n "$f" ] && [ ! -e "$R$f" ] && { mkdir -p "$R$(dirname "$f")"; cp -L "$f" "$R$f"; }; done
cp /etc/ssl/certs/ca-certificates.crt "$R/etc/ssl/certs/" 2>/dev/null || true
echo 'root:x:0:0:root:/root:/bin/sh' >"$R/etc/passwd"; echo 'root:x:0:' >"$R/etc/group"; echo 'hosts: files dns' >"$R/etc/nsswitch.conf"
tar -C "$R" --numeric-owner --owner=0 --group=0 -cf - . | docker -H "unix://$SOCK" import -c "ENV PATH=$PFX/bin:/bin:/usr/bin" -c 'ENV LANG=C.UTF-8' -c 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' -c 'CMD ["python3"]' - "$TAG"
rm -rf "$R"
