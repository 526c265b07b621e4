package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// remains looks at what a mesh could leave behind, from before its end: the namespaces
// that it made things in vanish with it from everybody else's sight.
type remains struct {
	network *watch   // nil where that is the machine's
	named   *os.File // folder with the names of workloads' namespaces
}

// observe looks into the mesh's network and opens its folder of namespaces.
func (p *project) observe() *remains {
	p.t.Helper()
	supervisor, err := p.Process("supervisor")
	if err != nil {
		p.t.Fatal(err)
	}
	r := &remains{}
	proc := fmt.Sprintf("/proc/%d", supervisor.PID)
	named := filepath.Join(p.dir, "s", "heddle", "run", "network", "netns")
	if isolated(p.mode) {
		named = proc + "/root/run/netns"
	}
	if r.named, err = os.Open(named); err != nil && !(errors.Is(err, os.ErrNotExist) && strings.HasPrefix(p.mode, explicit)) {
		p.t.Fatal(err)
	}
	if p.mode == rootless || isolated(p.mode) {
		r.network = p.watchLinks()
	}
	return r
}

// watch is a process in the mesh's network that lists its links when it is asked to.
type watch struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
}

func (p *project) watchLinks() *watch {
	p.t.Helper()
	cmd, err := p.outside("links")
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Env = nil // it is none of the mesh's processes
	if p.mode != rootless {
		cmd.SysProcAttr.Credential = nil // root has made the network
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	w := &watch{cmd, in, json.NewDecoder(out)}
	links, err := w.links() // it must be in there before the mesh ends
	if err == nil && !strings.HasPrefix(p.mode, explicit) && !slices.Contains(links, "bridge heddle0") {
		err = fmt.Errorf("no bridge among %v", links)
	}
	if err != nil {
		p.t.Fatalf("watch the links: %v", err)
	}
	return w
}

func (w *watch) links() (list []string, err error) {
	if _, err := fmt.Fprintln(w.in); err != nil {
		return nil, err
	}
	return list, w.answers.Decode(&list)
}

func (w *watch) close() error {
	w.in.Close()
	return w.cmd.Wait()
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

// check fails the test if anything is left in the mesh's network.
func (r *remains) check(p *project) {
	if r.named != nil {
		defer r.named.Close()
		names, err := r.named.Readdirnames(-1)
		if err != nil {
			p.t.Error(err)
		}
		if len(names) > 0 {
			p.t.Errorf("namespaces are left: %v", names)
		}
	}
	r.checkLinks(p)
}

// checkLinks is check for a mesh that another one has followed in the same folders.
func (r *remains) checkLinks(p *project) {
	if r.network == nil {
		return
	}
	links, err := r.network.links()
	if err := errors.Join(err, r.network.close()); err != nil {
		p.t.Error(err)
	}
	for _, l := range links {
		// Besides lo there may be tunnels that the kernel makes in every namespace.
		if strings.HasPrefix(l, "bridge ") || strings.HasPrefix(l, "veth ") {
			p.t.Errorf("%s is left", l)
		}
	}
}

// checkProcesses looks for processes with our environment but for one, and ends them.
func (p *project) checkProcesses(but ...int) {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/environ", &pid); err != nil {
			continue
		}
		environ, err := os.ReadFile(path) // others' are closed to a plain user, and no concern of ours
		if err != nil || !bytes.Contains(environ, []byte("XDG_STATE_HOME="+p.dir+"/")) || slices.Contains(but, pid) {
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
