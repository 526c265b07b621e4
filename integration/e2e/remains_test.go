package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// remains looks at what a mesh could leave behind, from before its end: the namespaces
// that it made things in vanish with it from everybody else's sight.
type remains struct {
	links *netlink.Handle // into the mesh's network; nil where we may not look
	named *os.File        // folder with the names of workloads' namespaces
}

// observe opens the mesh's network and its folder of namespaces.
func (p *project) observe() *remains {
	p.t.Helper()
	supervisor, err := p.Process("supervisor")
	if err != nil {
		p.t.Fatal(err)
	}
	r := &remains{}
	proc := fmt.Sprintf("/proc/%d", supervisor.PID)
	named := filepath.Join(p.dir, "s", "heddle", "run", "network", "netns")
	if p.mode == transparent {
		named = proc + "/root/run/netns"
	}
	if r.named, err = os.Open(named); err != nil {
		p.t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		ns, err := netns.GetFromPath(proc + "/ns/net")
		if err != nil {
			p.t.Fatal(err)
		}
		defer ns.Close()
		if r.links, err = netlink.NewHandleAt(ns); err != nil {
			p.t.Fatal(err)
		}
	}
	return r
}

// stop ends the mesh and fails the test if anything of it is left. It shows the logs of a
// failed test.
func (p *project) stop() {
	if _, err := p.Heddle("down", "-p", "e", "--timeout", "30s"); err != nil {
		p.t.Error(err)
	}
	p.checkProcesses()
	if p.left != nil {
		p.left.check(p)
	}
	if p.t.Failed() {
		p.showLogs()
	}
	if err := os.RemoveAll(p.dir); err != nil {
		p.t.Error(err)
	}
}

func (r *remains) check(p *project) {
	defer r.named.Close()
	names, err := r.named.Readdirnames(-1)
	if err != nil {
		p.t.Error(err)
	}
	if len(names) > 0 {
		p.t.Errorf("namespaces are left: %v", names)
	}
	if r.links == nil {
		return
	}
	defer r.links.Close()
	links, err := r.links.LinkList()
	if err != nil {
		p.t.Error(err)
	}
	for _, l := range links {
		// Besides lo there may be tunnels that the kernel makes in every namespace.
		if l.Type() == "bridge" || l.Type() == "veth" {
			p.t.Errorf("link %s is left", l.Attrs().Name)
		}
	}
}

// checkProcesses looks for processes with our environment, and ends them.
func (p *project) checkProcesses() {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/environ", &pid); err != nil {
			continue
		}
		environ, err := os.ReadFile(path) // others' are closed to a plain user, and no concern of ours
		if err != nil || !bytes.Contains(environ, []byte("XDG_STATE_HOME="+p.dir+"/")) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		p.t.Errorf("process %d is left: %s", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// showLogs prints the end of every log, without requests that went well.
func (p *project) showLogs() {
	files, _ := filepath.Glob(filepath.Join(p.state, "logs", "*.log"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var lines []string
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, `"code":200`) && !strings.Contains(line, `"flags":"-"`) {
				lines = append(lines, line)
			}
		}
		p.t.Logf("%s at %s:\n%s", filepath.Base(file), time.Now().Format(time.TimeOnly),
			strings.Join(lines[max(0, len(lines)-25):], ""))
	}
}
