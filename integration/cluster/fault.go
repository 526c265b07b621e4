package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// OnNode makes a command that runs on a node, counted from 1.
func (c *Cluster) OnNode(ctx context.Context, i int, args ...string) (*exec.Cmd, error) {
	pid, err := c.process(nodeName(i))
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, "nsenter", append([]string{"--target=" + strconv.Itoa(pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--"}, args...)...), nil
}

// KillNode ends all processes of a node at once, as a loss of power does: nobody hears its
// connections end. It is away until StartNode.
func (c *Cluster) KillNode(i int) error {
	if out, err := c.In(context.Background(), "ip", "link", "set", hostLink(i), "down").CombinedOutput(); err != nil {
		return fmt.Errorf("unplug %s: %w: %s", nodeName(i), err, out)
	}
	return c.Hold(nodeName(i))
}

// StartNode starts a node that was killed, with the disk that it had.
func (c *Cluster) StartNode(i int) error { return c.Release(nodeName(i)) }

// Hold kills one of etcd, kube-apiserver, kube-controller-manager and kube-scheduler, which
// is not started again before Release.
func (c *Cluster) Hold(program string) error {
	if err := os.WriteFile(filepath.Join(c.dir, holdFolder, program), nil, 0o644); err != nil {
		return fmt.Errorf("hold %s: %w", program, err)
	}
	pid, err := c.process(program)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("hold %s: %w", program, err)
	}
	for alive(pid) {
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// Release lets run again what Hold ended. It does not wait for it.
func (c *Cluster) Release(program string) error {
	if err := os.Remove(filepath.Join(c.dir, holdFolder, program)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release %s: %w", program, err)
	}
	return nil
}

// process finds a child of the fabric's first process: a program by its file, a node by its
// hostname.
func (c *Cluster) process(name string) (int, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", c.pid)) // each thread has its own
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		pids, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			line, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err != nil {
				continue // as above
			}
			program, rest, _ := bytes.Cut(line, []byte{0})
			if bytes.HasPrefix(rest, []byte(childArgument+"\x00node\x00")) {
				host, err := exec.Command("nsenter", "--target="+pid, "--uts", "hostname").Output()
				if err != nil || strings.TrimSpace(string(host)) != name {
					continue
				}
			} else if filepath.Base(string(program)) != name {
				continue
			}
			return strconv.Atoi(pid)
		}
	}
	return 0, fmt.Errorf("%s does not run in the cluster %s", name, c.name)
}
