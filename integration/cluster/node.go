package cluster

import (
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

//go:embed config
var configs embed.FS

// runNode is the first process of a node: it joins the fabric's network, and starts
// containerd, the kubelet and kube-proxy, all with private copies of the folders whose
// places they have built in.
func runNode(j job) error {
	if err := ownMounts(); err != nil {
		return err
	}
	n := node{j, nodeName(j.Node), j.path(nodeName(j.Node))}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"network", n.network}, {"folders", n.folders}, {"settings of the machine", n.shadow}, {"cgroups", n.cgroups}, {"configuration", n.configure},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	c := newChildren(j.Options.Dir)
	return n.start(c)
}

type node struct {
	job
	name, dir string
}

func (n node) network() error {
	if err := unix.Sethostname([]byte(n.name)); err != nil {
		return err
	}
	p := plan{n.Options.Nodes}
	v4, v6 := p.node(n.Node)
	for _, device := range []string{"lo", "eth0"} {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if device == "eth0" {
			for _, text := range []string{v4.String() + "/24", v6.String() + "/64"} {
				if err := addAddress(link, text); err != nil {
					return err
				}
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	for i := 1; i <= n.Options.Nodes; i++ {
		other4, other6 := p.node(i)
		pods4, pods6 := p.pods(i)
		if i == n.Node {
			continue
		}
		if err := errors.Join(addRoute(pods4.String(), other4.String()), addRoute(pods6.String(), other6.String())); err != nil {
			return err
		}
	}
	for _, gateway := range []string{fabricIP, fabricIP6} {
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}); err != nil {
			return fmt.Errorf("default route: %w", err)
		}
	}
	return writeFiles(map[string]string{
		"/proc/sys/net/ipv4/ip_forward":          "1",
		"/proc/sys/net/ipv6/conf/all/forwarding": "1",
	})
}

func (n node) folders() error {
	if err := memory("/run"); err != nil {
		return err
	}
	for _, d := range []struct{ own, builtIn string }{
		{"kubelet", "/var/lib/kubelet"}, {"log", "/var/log"}, {"cnistate", "/var/lib/cni"}, {"containerd", "/var/lib/containerd"},
		{"cni", cniConfDir}, {"cnibin", cniBinDir},
	} {
		if err := errors.Join(os.MkdirAll(filepath.Join(n.dir, d.own), 0o755), os.MkdirAll(d.builtIn, 0o755)); err != nil {
			return err
		}
		if err := bind(filepath.Join(n.dir, d.own), d.builtIn); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/run/containerd", "/run/lock", "/run/netns", "/var/log/pods", "/var/log/containers"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := linkAll(debianCNIDir, cniBinDir); err != nil {
		return err
	}
	// What the kubelet mounts must reach containers.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// linkAll links all files of a folder into another.
func linkAll(from, to string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		err := os.Symlink(filepath.Join(from, f.Name()), filepath.Join(to, f.Name()))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// shadow lets the kubelet find the settings of the machine that it would write as it wants
// them, in files: they are not the node's to change.
func (n node) shadow() error {
	for path, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		if _, err := os.Stat("/proc/sys/" + path); err != nil {
			continue
		}
		file := filepath.Join(n.dir, "sys", strings.ReplaceAll(path, "/", "_"))
		if err := writeFiles(map[string]string{file: value + "\n"}); err != nil {
			return err
		}
		if err := bind(file, "/proc/sys/"+path); err != nil {
			return err
		}
	}
	return nil
}

// cgroup is the node's, below which its pods are: nodes would fight over the usual one.
func (n node) cgroup() string { return cgroupName(n.Options.Name) + "/" + n.name }

func cgroupName(cluster string) string { return "heddle-cluster-" + cluster }

// cgroups makes the node's in every hierarchy. In version 1 a new cpuset is empty.
func (n node) cgroups() error {
	for _, hierarchy := range cgroupHierarchies() {
		path := hierarchy
		for step := range strings.SplitSeq(n.cgroup(), "/") {
			path = filepath.Join(path, step)
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				value, err := os.ReadFile(filepath.Join(filepath.Dir(path), file))
				if err != nil || len(value) < 2 {
					continue // not this hierarchy, or version 2, where nothing is to be done
				}
				if err := os.WriteFile(filepath.Join(path, file), value, 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// cgroupHierarchies are where cgroups are mounted: one in version 2, several in version 1,
// and one of version 2 beside them where both are used; container runtimes make theirs in
// all of them.
func cgroupHierarchies() []string {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		return []string{root}
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(root, e.Name()))
		}
	}
	return out
}

func (n node) configure() error {
	pods4, pods6 := plan{n.Options.Nodes}.pods(n.Node)
	replace := strings.NewReplacer(
		"PAUSE_IMAGE", pauseImage, "CNI_BIN", cniBinDir, "CNI_CONF", cniConfDir, "DNS_IP", dnsIP, "POD_CIDRS", podCIDRs, "PODS4", pods4.String(), "PODS6", pods6.String(),
		"CGROUP", "/"+n.cgroup(), "PKI", n.path("pki"), "NODE", n.name, "DIR", n.dir,
	)
	containerd := "containerd2.toml"
	version, err := exec.Command("containerd", "--version").Output()
	if err != nil {
		return fmt.Errorf("containerd --version: %w", err)
	}
	if strings.Contains(string(version), " 1.") || strings.Contains(string(version), " v1.") {
		containerd = "containerd1.toml"
	}
	files := map[string]string{filepath.Join(n.dir, "resolv.conf"): ""}
	for from, to := range map[string]string{
		containerd: "containerd.toml", "kubelet.yaml": "kubelet.yaml", "proxy.yaml": "proxy.yaml", "cni.json": "cni/10-cluster.conflist",
		"ptp-settled": "cnibin/ptp-settled",
	} {
		data, err := configs.ReadFile("config/" + from)
		if err != nil {
			return err
		}
		files[filepath.Join(n.dir, to)] = replace.Replace(string(data))
	}
	return errors.Join(writeFiles(files), os.Chmod(filepath.Join(n.dir, "cnibin", "ptp-settled"), 0o755))
}

// start starts the node's programs, and imports images: those that the first pods need
// before the kubelet, which would give up on them for a while.
func (n node) start(c *children) error {
	c.keep(n.name+"-containerd", "containerd", "--config="+filepath.Join(n.dir, "containerd.toml"))
	for c.run(n.name+"-ctr", "ctr", "version") != nil {
		time.Sleep(100 * time.Millisecond)
	}
	if err := n.load(c, n.path("images", "pause.tar")); err != nil {
		return err
	}
	v4, v6 := plan{n.Options.Nodes}.node(n.Node)
	c.keep(n.name+"-kubelet", n.Programs["kubelet"], "--config="+filepath.Join(n.dir, "kubelet.yaml"), "--kubeconfig="+n.pki(n.name+".kubeconfig"),
		"--hostname-override="+n.name, fmt.Sprintf("--node-ip=%s,%s", v4, v6), "--v=2",
		fmt.Sprintf("--node-labels=topology.kubernetes.io/zone=z%d,topology.kubernetes.io/region=test", n.Node))
	c.keep(n.name+"-proxy", n.Programs["kube-proxy"], "--config="+filepath.Join(n.dir, "proxy.yaml"), "--v=1")
	for _, archive := range append([]string{n.path("images", "coredns.tar")}, n.Options.Images...) {
		if err := n.load(c, archive); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(n.dir, "images"), nil, 0o644); err != nil {
		return err
	}
	select {} // the programs run until somebody kills us
}

func (n node) load(c *children, archive string) error {
	return c.run(n.name+"-ctr", "ctr", "--namespace=k8s.io", "images", "import", archive)
}
