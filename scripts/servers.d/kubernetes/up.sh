#!/bin/bash
# Starts a single-node Kubernetes inside its own network namespace.
# Leaves $RUN/admin.kubeconfig (cluster-admin) and $RUN/agent.kubeconfig
# (a service account with a namespaced Role). PIDs in $RUN/pid.
set -euo pipefail
. "$(dirname "$0")/env.sh"
t0=$(date +%s.%N)
lap() { printf '%6.1fs %s\n' "$(echo "$(date +%s.%N) - $t0" | bc 2>/dev/null || python3 -c "import time;print(time.time()-$t0)")" "$*"; }
[ -e "$RUN/pid" ] && { echo "already up? run down.sh first ($RUN exists)" >&2; exit 1; }
for c in containerd ctr runc; do command -v $c >/dev/null || { echo "missing $c: apt-get install --no-install-recommends containerd runc containernetworking-plugins" >&2; exit 1; }; done
mkdir -p "$RUN"/{pid,command,log,pki,cni/net.d,etcd,kubelet,manifests}; chmod 700 "$RUN/pki"
# the kubelet sets these machine-wide; down.sh puts them back
for k in vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes; do
  echo "$k=$(sysctl -n $k)"; done > "$RUN/sysctl.before"
N="nsenter --net=/var/run/netns/$NS"

# --- network: namespace + veth to the host --------------------------------
ip netns add $NS
ip link add $LINK type veth peer name eth0 netns $NS
ip addr add $HOST_IP/24 dev $LINK; ip link set $LINK up
$N ip link set lo up
$N ip addr add $NODE_IP/24 dev eth0; $N ip link set eth0 up
$N ip route add $SVC_CIDR dev eth0
ip route replace $POD_CIDR via $NODE_IP
cat > "$RUN/cni/net.d/10-bridge.conflist" <<J
{"cniVersion":"0.4.0","name":"k8s","plugins":[
 {"type":"bridge","bridge":"br0","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"$RUN/cni/ipam","ranges":[[{"subnet":"$POD_CIDR"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
J

# --- keys ------------------------------------------------------------------
cd "$RUN/pki"
openssl ecparam -genkey -name prime256v1 -noout -out ca.key
openssl req -x509 -new -key ca.key -subj /CN=k8s-ca -days 3650 -out ca.crt \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
openssl ecparam -genkey -name prime256v1 -noout -out api.key
openssl req -new -key api.key -subj /CN=kube-apiserver -out api.csr
openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out api.crt -extfile <(cat <<X
subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$NODE_IP,IP:$SVC_IP
extendedKeyUsage=serverAuth
keyUsage=digitalSignature
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
X
) 2>/dev/null
openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
tok() { openssl rand -hex 16; }
T_ADMIN=$(tok) T_KUBELET=$(tok) T_KCM=$(tok) T_SCHED=$(tok) T_PROXY=$(tok)
cat > tokens.csv <<X
$T_ADMIN,admin,admin,"system:masters"
$T_KUBELET,system:node:node1,kubelet,"system:nodes"
$T_KCM,system:kube-controller-manager,kcm
$T_SCHED,system:kube-scheduler,sched
$T_PROXY,system:kube-proxy,proxy
X
kubeconfig() { cat > "$RUN/$1.kubeconfig" <<X
apiVersion: v1
kind: Config
clusters: [{name: k, cluster: {server: "$API", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: u, user: {token: "$2"}}]
contexts: [{name: c, context: {cluster: k, user: u, namespace: ${3:-default}}}]
current-context: c
X
chmod 600 "$RUN/$1.kubeconfig"; }
kubeconfig admin $T_ADMIN; kubeconfig kubelet $T_KUBELET; kubeconfig kcm $T_KCM; kubeconfig sched $T_SCHED; kubeconfig proxy $T_PROXY
cd "$RUN"

# start NAME CMD...: in the namespace, own session, PID noted
start() { local n=$1; shift
  printf '%q ' "$@" >"$RUN/command/$n"
  setsid nohup "$@" >"$RUN/log/$n.log" 2>&1 < /dev/null &
  echo $! > "$RUN/pid/$n"; }
alive() { kill -0 "$(cat "$RUN/pid/$1")" 2>/dev/null || { echo "$1 died:" >&2; tail -20 "$RUN/log/$1.log" >&2; exit 1; }; }
wait_for() { local what=$1 pidn=$2; shift 2
  for _ in $(seq 600); do "$@" >/dev/null 2>&1 && { lap "$what"; return; }; alive "$pidn"; sleep 0.2; done
  echo "timeout: $what" >&2; tail -20 "$RUN/log/$pidn.log" >&2; exit 1; }
lap "keys and network"

# --- containerd -------------------------------------------------------------
cat > containerd.toml <<X
version = 2
root = "$RUN/containerd/root"
state = "$RUN/containerd/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs","io.containerd.snapshotter.v1.zfs","io.containerd.snapshotter.v1.devmapper","io.containerd.snapshotter.v1.aufs","io.containerd.internal.v1.opt","io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "$SOCK"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$RUN/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
X
start containerd $N containerd --config "$RUN/containerd.toml"
start etcd $N "$BIN/etcd" --data-dir "$RUN/etcd" --unsafe-no-fsync --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380
start apiserver $N "$BIN/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
  --bind-address 0.0.0.0 --advertise-address $NODE_IP --secure-port 6443 --cert-dir "$RUN/pki" \
  --tls-cert-file "$RUN/pki/api.crt" --tls-private-key-file "$RUN/pki/api.key" \
  --token-auth-file "$RUN/pki/tokens.csv" --authorization-mode Node,RBAC --anonymous-auth=true \
  --service-cluster-ip-range $SVC_CIDR --service-account-issuer https://kubernetes.default.svc \
  --service-account-key-file "$RUN/pki/sa.pub" --service-account-signing-key-file "$RUN/pki/sa.key" \
  --kubelet-preferred-address-types InternalIP --enable-admission-plugins NodeRestriction --allow-privileged=true --profiling=false
wait_for "containerd answers" containerd ctr -a "$SOCK" version
for i in "$IMAGES"/*.tar; do ctr -a "$SOCK" -n k8s.io images import "$i" >/dev/null; done
lap "images imported"
K="$BIN/kubectl --kubeconfig $RUN/admin.kubeconfig"
wait_for "apiserver /readyz" apiserver $K get --raw /readyz
start kcm $N "$BIN/kube-controller-manager" --kubeconfig "$RUN/kcm.kubeconfig" --use-service-account-credentials \
  --service-account-private-key-file "$RUN/pki/sa.key" --root-ca-file "$RUN/pki/ca.crt" --leader-elect=false \
  --bind-address 127.0.0.1 --cert-dir "$RUN/pki/kcm" --kube-api-qps 500 --kube-api-burst 500 --profiling=false
start sched $N "$BIN/kube-scheduler" --kubeconfig "$RUN/sched.kubeconfig" --leader-elect=false --bind-address 127.0.0.1 --profiling=false

# --- kubelet ----------------------------------------------------------------
printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' > resolv.conf   # no DNS in the cluster; fails at once
cat > kubelet.yaml <<X
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
readOnlyPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://$SOCK
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: $(ulimit -Hn)
enforceNodeAllocatable: [pods]
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
makeIPTablesUtilChains: false
resolvConf: $RUN/resolv.conf
volumePluginDir: $RUN/volplugins
staticPodPath: $RUN/manifests
podLogsDir: $RUN/podlogs
shutdownGracePeriod: 0s
containerLogMaxSize: 1Mi
containerLogMonitorInterval: 3s
volumeStatsAggPeriod: 2s
X
start kubelet $N "$BIN/kubelet" --config "$RUN/kubelet.yaml" --kubeconfig "$RUN/kubelet.kubeconfig" \
  --hostname-override node1 --node-ip $NODE_IP --root-dir "$RUN/kubelet" --cert-dir "$RUN/pki/kubelet"
start proxy $N "$BIN/kube-proxy" --kubeconfig "$RUN/proxy.kubeconfig" --hostname-override node1 --proxy-mode iptables \
  --cluster-cidr $POD_CIDR --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s \
  --healthz-bind-address 127.0.0.1:10256 --metrics-bind-address 127.0.0.1:10249
wait_for "default service account" kcm $K get sa default
node_ready() { [ "$($K get node node1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]; }
wait_for "node Ready" kubelet node_ready

# --- a least-privilege service account for the project's executor ------------
$K apply -f - >/dev/null <<X
apiVersion: v1
kind: Namespace
metadata: {name: jobs}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent, namespace: jobs}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: agent, namespace: jobs}
rules:
- {apiGroups: [""], resources: [pods, pods/log, pods/exec, configmaps, secrets, events], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: agent, namespace: jobs}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: agent}
subjects: [{kind: ServiceAccount, name: agent, namespace: jobs}]
X
cd "$RUN/pki"; kubeconfig agent "$($K -n jobs create token agent --duration 24h)" jobs
wait_for "sa default in jobs" kcm $K -n jobs get sa default
lap "up: export KUBECONFIG=$RUN/admin.kubeconfig PATH=$BIN:\$PATH"
