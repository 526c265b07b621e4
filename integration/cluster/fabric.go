package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	_ "embed"

	"github.com/vishvananda/netlink"
)

//go:embed config/addons.yaml
var addons string

const bridgeName = "br0"

// runFabric is the first process of a cluster's namespaces. It makes the network, starts
// the control plane and the nodes, and lives until it is killed.
func runFabric(j job) error {
	if err := ownMounts(); err != nil {
		return err
	}
	if err := memory("/run"); err != nil {
		return err
	}
	resolver := "nameserver " + dnsIP + "\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
	if err := writeFiles(map[string]string{
		"/run/resolv.conf":                       resolver,
		"/proc/sys/net/ipv4/ip_forward":          "1",
		"/proc/sys/net/ipv6/conf/all/forwarding": "1",
	}); err != nil {
		return err
	}
	if resolv, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil {
		if err := bind("/run/resolv.conf", resolv); err != nil {
			return err
		}
	}
	bridge, err := makeBridge()
	if err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	c := newChildren(j.Options.Dir)
	j.startStore(c)
	for i := 1; i <= j.Options.Nodes; i++ {
		if err := j.routes(i); err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
		go c.supervise(nodeName(i), func() (<-chan syscall.WaitStatus, error) {
			done, err := j.startNode(c, bridge, i)
			if err != nil {
				return nil, fmt.Errorf("node %d: %w", i, err)
			}
			return done, nil
		})
	}
	if err := j.startControllers(c); err != nil {
		return err
	}
	if err := os.WriteFile(j.path("ready"), nil, 0o644); err != nil {
		return err
	}
	return j.balance() // for ever
}

func makeBridge() (netlink.Link, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, err
	}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}); err != nil {
		return nil, err
	}
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return nil, err
	}
	for _, text := range []string{fabricIP + "/24", fabricIP6 + "/64"} {
		if err := addAddress(bridge, text); err != nil {
			return nil, err
		}
	}
	return bridge, netlink.LinkSetUp(bridge)
}

// addAddress adds an address at once: nobody else can have it, so there is no need to ask.
func addAddress(link netlink.Link, text string) error {
	addr, err := netlink.ParseAddr(text)
	if err != nil {
		return err
	}
	addr.Flags = syscall.IFA_F_NODAD
	return netlink.AddrAdd(link, addr)
}

func addRoute(to, via string) error {
	_, network, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{Dst: network, Gw: net.ParseIP(via)}); err != nil {
		return fmt.Errorf("route %s via %s: %w", to, via, err)
	}
	return nil
}

// startNode joins a new node to the bridge, in the place of one that ended.
func (j job) startNode(c *children, bridge netlink.Link, i int) (done <-chan syscall.WaitStatus, err error) {
	cmd := child("node", syscall.CLONE_NEWNS|syscall.CLONE_NEWPID|syscall.CLONE_NEWNET|syscall.CLONE_NEWUTS|syscall.CLONE_NEWIPC, true)
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	defer write.Close() // where we fail the node is told nothing, and ends
	cmd.Stdin = read
	if done, err = c.start(nodeName(i), cmd); err != nil {
		return nil, err
	}
	if err := plug(bridge, hostLink(i), cmd.Process.Pid); err != nil {
		return nil, fmt.Errorf("join it to the bridge: %w", err)
	}
	own := j
	own.Node = i
	return done, json.NewEncoder(write).Encode(own) // its network is there: it may begin
}

// hostLink is the fabric's end of the cable of a node.
func hostLink(i int) string { return fmt.Sprintf("v%d", i) }

// plug connects the network of a process with the bridge.
func plug(bridge netlink.Link, name string, pid int) error {
	if old, err := netlink.LinkByName(name); err == nil { // the kernel takes its time with the networks of the dead
		if err := netlink.LinkDel(old); err != nil {
			return err
		}
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsPid(pid)}); err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// routes lead from the fabric to the pods of a node.
func (j job) routes(i int) error {
	v4, v6 := plan{j.Options.Nodes}.node(i)
	pods4, pods6 := plan{j.Options.Nodes}.pods(i)
	for to, via := range map[string]string{pods4.String(): v4.String(), pods6.String(): v6.String()} {
		if err := addRoute(to, via); err != nil {
			return err
		}
	}
	if i > 1 {
		return nil
	}
	// The first node's kube-proxy answers for Services' addresses to the fabric.
	for _, to := range append(strings.Split(serviceCIDRs, ","), balancerCIDR) {
		via := v4.String()
		if strings.Contains(to, ":") {
			via = v6.String()
		}
		if err := addRoute(to, via); err != nil {
			return err
		}
	}
	return nil
}

// startStore starts etcd and the API server.
func (j job) startStore(c *children) {
	const peer, client = "http://127.0.0.1:2380", "http://127.0.0.1:2379"
	c.keep("etcd", j.Programs["etcd"], "--data-dir=/run/etcd", "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	c.keep("kube-apiserver", append([]string{j.Programs["kube-apiserver"]}, j.apiserverFlags(client)...)...)
}

func (j job) apiserverFlags(etcd string) []string {
	return []string{
		"--etcd-servers=" + etcd, "--advertise-address=" + fabricIP, "--bind-address=::", "--secure-port=6443",
		"--service-cluster-ip-range=" + serviceCIDRs, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", "--profiling=false", "--v=1",
		"--client-ca-file=" + j.pki("ca.crt"), "--tls-cert-file=" + j.pki("apiserver.crt"), "--tls-private-key-file=" + j.pki("apiserver.key"),
		"--kubelet-client-certificate=" + j.pki("apiserver-kubelet.crt"), "--kubelet-client-key=" + j.pki("apiserver-kubelet.key"),
		"--kubelet-certificate-authority=" + j.pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + j.pki("sa.pub"), "--service-account-signing-key-file=" + j.pki("sa.key"),
		"--requestheader-client-ca-file=" + j.pki("ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + j.pki("front-proxy.crt"), "--proxy-client-key-file=" + j.pki("front-proxy.key"),
	}
}

// startControllers starts the rest of the control plane once the API server is ready:
// before its roles are there, the controller manager would give up.
func (j job) startControllers(c *children) error {
	j.await(c, "get", "--raw=/readyz")
	c.keep("kube-controller-manager", j.Programs["kube-controller-manager"],
		"--kubeconfig="+j.pki("controller-manager.kubeconfig"), "--authentication-kubeconfig="+j.pki("controller-manager.kubeconfig"),
		"--authorization-kubeconfig="+j.pki("controller-manager.kubeconfig"), "--service-account-private-key-file="+j.pki("sa.key"),
		"--root-ca-file="+j.pki("ca.crt"), "--cluster-signing-cert-file="+j.pki("ca.crt"), "--cluster-signing-key-file="+j.pki("ca.key"),
		"--use-service-account-credentials=true", "--leader-elect=false", "--profiling=false", "--v=1",
		// A node that is gone is known to be within seconds: tests wait for it.
		"--node-monitor-period=1s", "--node-monitor-grace-period=15s")
	c.keep("kube-scheduler", j.Programs["kube-scheduler"],
		"--kubeconfig="+j.pki("scheduler.kubeconfig"), "--authentication-kubeconfig="+j.pki("scheduler.kubeconfig"),
		"--authorization-kubeconfig="+j.pki("scheduler.kubeconfig"), "--leader-elect=false", "--profiling=false", "--v=1")
	manifest := j.path("addons.yaml")
	if err := os.WriteFile(manifest, []byte(strings.NewReplacer("COREDNS_IMAGE", corednsImage, "DNS_IP", dnsIP).Replace(addons)), 0o644); err != nil {
		return err
	}
	j.await(c, "apply", "-f", manifest)
	for i := 1; i <= j.Options.Nodes; i++ {
		j.await(c, "wait", "--for=condition=Ready", "node/"+nodeName(i), "--timeout=10s")
	}
	j.await(c, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=10s")
	for i := 1; i <= j.Options.Nodes; i++ {
		for {
			if _, err := os.Stat(j.path(nodeName(i), "images")); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

// await runs kubectl until it succeeds. Start, which waits for us, has the patience.
func (j job) await(c *children, args ...string) {
	begin := time.Now()
	for c.run("kubectl", append([]string{j.Programs["kubectl"], "--kubeconfig=" + j.pki("admin.kubeconfig")}, args...)...) != nil {
		time.Sleep(200 * time.Millisecond)
	}
	fmt.Fprintf(os.Stderr, "%s %5.1f s for kubectl %s\n", time.Now().Format(time.TimeOnly), time.Since(begin).Seconds(), strings.Join(args, " "))
}
