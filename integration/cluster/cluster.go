package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Cluster is one that runs.
type Cluster struct {
	dir      string
	name     string
	nodes    int
	pid      int // of the fabric's first process
	programs Programs
	lifeline *os.File // nil for one that lives on without us
}

// record is what is left in the folder for those who come later.
type record struct {
	Name     string
	Nodes    int
	PID      int
	Programs Programs
}

const recordFile = "cluster.json"

// Start boots a cluster and waits until its nodes and its DNS are ready, which takes about
// 20 seconds. If that fails, its logs stay in Dir/log.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	programs, err := Build(ctx, o.Log)
	if err != nil {
		return nil, err
	}
	if _, err := Find(o.Dir); err == nil {
		return nil, fmt.Errorf("a cluster runs in %s already", o.Dir)
	}
	begin := time.Now()
	for _, dir := range []string{"log", "images", holdFolder} {
		if err := os.MkdirAll(filepath.Join(o.Dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	if err := writePKI(filepath.Join(o.Dir, "pki"), plan{o.Nodes}); err != nil {
		return nil, err
	}
	if _, _, err := writeImages(filepath.Join(o.Dir, "images"), programs); err != nil {
		return nil, err
	}
	c := &Cluster{dir: o.Dir, name: o.Name, nodes: o.Nodes, programs: programs}
	if err := c.boot(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("boot the cluster: %w; its logs are in %s", err, filepath.Join(o.Dir, "log")), c.kill())
	}
	fmt.Fprintf(o.Log, "cluster %s with %d nodes is ready after %.1f s\n", o.Name, o.Nodes, time.Since(begin).Seconds())
	return c, nil
}

// boot starts the fabric and waits until it says that all is ready.
func (c *Cluster) boot(ctx context.Context, o Options) error {
	log, err := os.Create(filepath.Join(o.Dir, "log", "fabric.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := child("fabric", syscall.CLONE_NEWNS|syscall.CLONE_NEWPID|syscall.CLONE_NEWNET, false)
	cmd.Stdout, cmd.Stderr = log, log
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	cmd.Stdin = read
	if err := cmd.Start(); err != nil {
		return errors.Join(err, write.Close())
	}
	c.pid = cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	told := job{Options: Options{Name: o.Name, Dir: o.Dir, Nodes: o.Nodes, Images: o.Images, Detach: o.Detach}, Programs: c.programs}
	if err := json.NewEncoder(write).Encode(told); err != nil {
		return errors.Join(err, write.Close())
	}
	c.lifeline = write // our end, whatever comes, is the cluster's too, unless it is detached
	if o.Detach {
		c.lifeline = nil
		write.Close()
	}
	text, err := json.Marshal(record{c.name, c.nodes, c.pid, c.programs})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.Dir, recordFile), text, 0o644); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(filepath.Join(o.Dir, "ready")); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("its first process ended: %v: %s", err, said)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Find finds the cluster that runs in a folder.
func Find(dir string) (*Cluster, error) {
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, fmt.Errorf("no cluster in %s: %w", dir, err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("cluster in %s: %w", dir, err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.PID))
	if err != nil || !strings.Contains(string(line), childArgument) {
		return nil, fmt.Errorf("the cluster in %s has ended", dir)
	}
	return &Cluster{dir: dir, name: r.Name, nodes: r.Nodes, pid: r.PID, programs: r.Programs}, nil
}

// Close ends the cluster and removes all it left behind, its logs among it.
func (c *Cluster) Close() error { return errors.Join(c.kill(), os.RemoveAll(c.dir)) }

// Stop ends the cluster and leaves its logs.
func (c *Cluster) Stop() error { return c.kill() }

// kill ends the first process of the pid namespace, and so all of them.
func (c *Cluster) kill() error {
	if c.pid == 0 {
		return nil
	}
	if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end the cluster: %w", err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for alive(c.pid) {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d of the cluster does not end", c.pid)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for {
		err := c.removeCgroups()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond) // the last processes are on their way out
	}
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// removeCgroups removes the cluster's, the deepest first.
func (c *Cluster) removeCgroups() error {
	var errs []error
	for _, hierarchy := range cgroupHierarchies() {
		var dirs []string
		root := filepath.Join(hierarchy, cgroupName(c.name))
		filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error { //nolint:errcheck // what is gone is gone
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := syscall.Rmdir(dirs[i]); err != nil && !errors.Is(err, syscall.ENOENT) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dirs[i], err))
			}
		}
	}
	return errors.Join(errs...)
}

// Dir is the folder with the cluster's logs and keys.
func (c *Cluster) Dir() string { return c.dir }

// Kubeconfig is the path of a kubeconfig for everything; its address is that of the fabric.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "pki", "admin.kubeconfig") }

// Program is the path of one of the cluster's programs, such as kubectl.
func (c *Cluster) Program(name string) string { return c.programs[name] }

// In makes a command that runs in the fabric, where all addresses of the cluster and the
// names of its DNS are known. kubectl is found and knows the cluster.
func (c *Cluster) In(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target=" + strconv.Itoa(c.pid), "--mount", "--net", "--pid", "--"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "PATH="+filepath.Dir(c.programs["kubectl"])+":"+os.Getenv("PATH"))
	return cmd
}

// Load imports an image archive on every node.
func (c *Cluster) Load(ctx context.Context, archive string) error {
	archive, err := filepath.Abs(archive)
	if err != nil {
		return err
	}
	for i := 1; i <= c.nodes; i++ {
		cmd, err := c.OnNode(ctx, i, "ctr", "--namespace=k8s.io", "images", "import", archive)
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("load %s on node %d: %w: %s", archive, i, err, out)
		}
	}
	return nil
}

// Dial connects from the fabric to an IP address and port of the cluster.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us, it is in another network
		ns, err := netns.GetFromPid(c.pid)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err != nil {
			done <- result{nil, fmt.Errorf("enter the cluster's network: %w", err)}
			return
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// REST is how client-go reaches the API server from outside of the cluster's network.
func (c *Cluster) REST() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	config.Dial = c.Dial
	config.QPS, config.Burst = 200, 400
	return config, nil
}
