package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// project is a mesh that runs.
type project struct {
	t    *testing.T
	mode string
	programs
	dir     string // of everything: heddle.yaml, mesh/, state/
	objects string // folder that the control plane watches
	state   string // the project's, with logs and sockets
	left    *remains
}

// process is what "heddle ps" says of one.
type process struct {
	Name, Kind, State, Workload, Address, Message string
	PID, Restarts                                 int
}

// start starts a mesh of the services in yaml, a heddle.yaml without name and objects,
// and of objects, which are texts by file name. The test's end stops it.
func start(t *testing.T, mode, yaml string, objects map[string]string) *project {
	t.Helper()
	p := prepare(t, mode, yaml, objects)
	if out, err := p.Up(0, "--detach", "--wait", "--timeout", "60s").CombinedOutput(); err != nil {
		t.Fatalf("heddle up: %v\n%s", err, out)
	}
	p.left = p.observe()
	return p
}

// prepare is start without the start.
func prepare(t *testing.T, mode, yaml string, objects map[string]string) *project {
	t.Helper()
	p := &project{t: t, mode: mode, programs: build(t)}
	p.makeDirs()
	for name, text := range objects {
		p.WriteObject(name, text)
	}
	config := "name: e\nobjects: mesh\n" + strings.ReplaceAll(yaml, "APP", p.app)
	p.write(filepath.Join(p.dir, "heddle.yaml"), config)
	t.Cleanup(p.stop)
	return p
}

// Up makes the command "heddle up", with flags; see in.
func (p *project) Up(place int, flags ...string) *exec.Cmd {
	args := []string{p.heddle, "up", "-f", filepath.Join(p.dir, "heddle.yaml"), "--capture", strings.Fields(p.mode)[0]}
	return p.in(place, append(args, flags...)...)
}

// in makes a command that runs where the mesh is to run. If the mode asks for namespaces
// around it they are those of the process place; with 0 the command gets new ones. The
// process keeps its number when it becomes the program.
func (p *project) in(place int, args ...string) *exec.Cmd {
	if !isolated(p.mode) {
		return p.command(args[0], args[1:]...)
	}
	if c := credential(p.mode); c != nil { // once inside
		args = append([]string{"setpriv", "--clear-groups", fmt.Sprintf("--reuid=%d", c.Uid), fmt.Sprintf("--regid=%d", c.Gid)}, args...)
	}
	cmd := p.command(p.app, append([]string{"isolate"}, args...)...)
	if place != 0 {
		cmd = p.command("nsenter", append([]string{"-t", strconv.Itoa(place), "--net", "--mount"}, args...)...)
	}
	cmd.SysProcAttr.Credential = nil
	return cmd
}

// makeDirs makes the folders, owned by whom the mesh runs as.
func (p *project) makeDirs() {
	p.t.Helper()
	dir, err := os.MkdirTemp(root, "")
	if err != nil {
		p.t.Fatal(err)
	}
	p.dir, p.objects = dir, filepath.Join(dir, "mesh")
	p.state = filepath.Join(dir, "s", "heddle", "projects", "e")
	for _, d := range []string{dir, p.objects, filepath.Join(dir, "s"), filepath.Join(dir, "home")} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			p.t.Fatal(err)
		}
		p.own(d)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) own(path string) {
	if c := credential(p.mode); c != nil {
		if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
			p.t.Fatal(err)
		}
	}
}

// command makes a command with the mesh's user and environment, and no others.
func (p *project) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	home := filepath.Join(p.dir, "home")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_STATE_HOME=" + filepath.Join(p.dir, "s"), "XDG_CACHE_HOME=" + home,
		"HEDDLE_ENVOY=" + p.envoy,
	}
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(p.mode)}
	return cmd
}

// Heddle runs one of heddle's commands and returns what it prints.
func (p *project) Heddle(args ...string) (string, error) {
	cmd := p.command(p.heddle, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("heddle %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out.String(), nil
}

// Exec runs a command of the test's program in the network of a workload and returns what
// it prints.
func (p *project) Exec(workload string, args ...string) (string, error) {
	return p.Heddle(append([]string{"exec", workload, "--", p.app}, args...)...)
}

// Outside runs a command of the test's program where no proxy captures: in the network
// that the workloads' own are connected to, as an intruder there would.
func (p *project) Outside(args ...string) (string, error) {
	cmd, err := p.outside(args...)
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

func (p *project) outside(args ...string) (*exec.Cmd, error) {
	supervisor, err := p.Process("supervisor")
	if err != nil {
		return nil, err
	}
	enter := []string{"-t", strconv.Itoa(supervisor.PID), "--net", "--mount"}
	if p.mode == rootless {
		enter = append(enter, "--user", "--preserve-credentials")
	}
	return p.command("nsenter", append(append(enter, p.app), args...)...), nil
}

// WriteObject puts a file into the folder of objects at once, as editors do.
func (p *project) WriteObject(name, text string) {
	p.t.Helper()
	p.write(filepath.Join(p.objects, name), text)
}

// Temporarily is WriteObject until the end of the test.
func (p *project) Temporarily(name, text string) {
	p.t.Helper()
	p.WriteObject(name, text)
	p.t.Cleanup(func() { p.RemoveObject(name) })
}

// RemoveObject removes a file of objects, if it is there.
func (p *project) RemoveObject(name string) {
	p.t.Helper()
	if err := os.Remove(filepath.Join(p.objects, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
}

func (p *project) write(path, text string) {
	p.t.Helper()
	temporary := filepath.Join(p.dir, "new")
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.own(temporary)
	if err := os.Rename(temporary, path); err != nil {
		p.t.Fatal(err)
	}
}

// Processes lists what runs.
func (p *project) Processes() ([]process, error) {
	text, err := p.Heddle("ps", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []process }
	return list.Items, json.Unmarshal([]byte(text), &list)
}

// Process finds a process by its name in "heddle ps".
func (p *project) Process(name string) (process, error) {
	processes, err := p.Processes()
	if err != nil {
		return process{}, err
	}
	i := slices.IndexFunc(processes, func(q process) bool { return q.Name == name })
	if i < 0 {
		return process{}, fmt.Errorf("there is no process %s among %v", name, processes)
	}
	return processes[i], nil
}

// Kill ends a process as a crash would, and returns what it was.
func (p *project) Kill(name string) process {
	p.t.Helper()
	q, err := p.Process(name)
	if err == nil && q.PID == 0 {
		err = fmt.Errorf("%s does not run", name)
	}
	if err == nil {
		err = syscall.Kill(q.PID, syscall.SIGKILL)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return q
}

// Again waits until a process that was killed is back and ready.
func (p *project) Again(was process) {
	p.t.Helper()
	await(p.t, 30*time.Second, was.Name+" runs again", func() error {
		is, err := p.Process(was.Name)
		if err == nil && (is.PID == was.PID || is.State != "ready") {
			err = fmt.Errorf("%+v", is)
		}
		return err
	})
}

// sidecarStatus is what a sidecar says of itself.
type sidecarStatus struct {
	Addresses    []string
	NetNS        string
	Ready        bool
	ControlPlane bool
	Identity     struct {
		ID        string
		Expires   time.Time
		LastError string
	}
	Envoy struct{ PID int }
}

// Status asks a workload's sidecar.
func (p *project) Status(workload string) (status sidecarStatus, err error) {
	body, err := p.ask(filepath.Join(p.state, "sidecars", workload, "status.sock"), "/status")
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal(body, &status)
}

// ask sends a GET request to a Unix socket.
func (p *project) ask(socket, path string) ([]byte, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Get("http://unix" + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	return body.Bytes(), err
}

// RunDir is the folder of a workload's sockets, as processes of the mesh know it.
func (p *project) RunDir(workload string) string {
	p.t.Helper()
	q, err := p.Process(workload + "/app")
	if err != nil {
		p.t.Fatal(err)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", q.PID))
	if err != nil {
		p.t.Fatal(err)
	}
	for variable := range strings.SplitSeq(string(environ), "\x00") {
		if socket, ok := strings.CutPrefix(variable, "SPIFFE_ENDPOINT_SOCKET=unix://"); ok {
			return filepath.Dir(filepath.Dir(socket))
		}
	}
	p.t.Fatalf("%s is not told where its Workload API is", workload)
	return ""
}

// Admin asks the administration interface of a workload's Envoy.
func (p *project) Admin(workload, path string) (string, error) {
	socket := p.RunDir(workload) + "/envoy/admin.sock"
	if isolated(p.mode) { // it lies in a mount namespace
		supervisor, err := p.Process("supervisor")
		if err != nil {
			return "", err
		}
		socket = fmt.Sprintf("/proc/%d/root%s", supervisor.PID, socket)
	}
	body, err := p.ask(socket, path)
	return string(body), err
}

// Log returns all that a process and its children have written.
func (p *project) Log(name string) string {
	text, err := os.ReadFile(filepath.Join(p.state, "logs", name+".log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	return string(text)
}

// AccessLog returns the lines of a workload's proxy.
func (p *project) AccessLog(workload string) []map[string]any {
	var out []map[string]any
	for line := range strings.Lines(p.Log(workload)) {
		fields := map[string]any{}
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &fields) == nil {
			out = append(out, fields)
		}
	}
	return out
}

// await waits until check is satisfied, and fails the test with its last words when that
// takes longer than limit.
func await(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %s not yet: %s: %v", limit, what, err)
		}
		<-tick.C
	}
}
