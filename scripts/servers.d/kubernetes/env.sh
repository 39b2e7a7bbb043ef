# Settings of the cluster's scripts, which source this. Override by environment.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${CACHE:-${FORMICARY_SERVERS_CACHE:-$HOME/.cache/formicary-servers}/kubernetes}
BIN=${BIN:-$CACHE/bin}                    # hyperkube and its links, built once
IMAGES=${IMAGES:-$CACHE/images}           # *.tar, imported at the start
RUN=${RUN:-/tmp/formicary-kubernetes}     # all state; a short path, for it holds sockets. One cluster a machine
NS=formicary-k8s                          # the network namespace the cluster lives in
LINK=fmc-k8s                              # this machine's end of its cable
HOST_IP=10.250.0.1                        # this machine, seen from the cluster
NODE_IP=10.250.0.2                        # API server, kubelet
POD_CIDR=10.244.0.0/24
SVC_CIDR=10.96.0.0/16
SVC_IP=10.96.0.1
API=https://$NODE_IP:6443
SOCK=$RUN/containerd.sock
