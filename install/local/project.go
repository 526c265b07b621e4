package local

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	"github.com/heddle-mesh/heddle/identity/attest"
)

// Project is the folder of one "heddle up".
//
//	supervisor.sock  ps and down, as HTTP
//	exec.sock        exec, with the caller's standard streams
//	controlplane.sock, controlplane/
//	logs/NAME.log    what a process writes
//	sidecars/NAME/   identity and last good configuration of a sidecar
//	data/NAME/       the program's own, ${STATE}
type Project struct {
	Name string
	Dir  string
}

// OpenProject gives the project of that name under home, the user's state folder.
func OpenProject(home, name string) (Project, error) {
	if !projectName.MatchString(name) {
		return Project{}, fmt.Errorf("project %q: not a name of at most 32 lower case letters, digits and dashes", name)
	}
	return Project{Name: name, Dir: filepath.Join(home, "projects", name)}, nil
}

// Projects lists the projects under home whose supervisor runs.
func Projects(home string) ([]Project, error) {
	entries, err := os.ReadDir(filepath.Join(home, "projects"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Project
	for _, e := range entries {
		if p, err := OpenProject(home, e.Name()); err == nil && p.Running() {
			out = append(out, p)
		}
	}
	return out, nil
}

// Make makes the folders. Programs run as other users must get through to their data.
func (p Project) Make() error {
	home := filepath.Dir(filepath.Dir(p.Dir))
	if err := os.MkdirAll(filepath.Dir(home), 0o711); err != nil {
		return fmt.Errorf("make the user's state folder: %w", err)
	}
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{home, 0o711}, {filepath.Dir(p.Dir), 0o711}, {p.Dir, 0o711}, {p.path("logs"), 0o700}, {p.path("sidecars"), 0o700}, {p.path("data"), 0o711}} {
		if err := makeDir(d.path, d.mode); err != nil {
			return fmt.Errorf("make the project's folder: %w", err)
		}
	}
	return nil
}

// makeDir makes a folder with that mode whatever the umask; one that is there stays as it is.
func makeDir(path string, mode os.FileMode) error {
	err := os.Mkdir(path, mode)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func (p Project) path(elem ...string) string {
	return filepath.Join(append([]string{p.Dir}, elem...)...)
}

// ControlPlane is the control plane's Unix socket.
func (p Project) ControlPlane() string { return p.path("controlplane.sock") }

// dial makes a connection to the control plane, as its own user.
func (p Project) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+p.ControlPlane(), grpc.WithTransportCredentials(attest.UnixCredentials()))
}

// Log is the log file of a process.
func (p Project) Log(name string) string { return p.path("logs", name+".log") }

// Started reports whether the project was ever started, so that it has logs.
func (p Project) Started() bool {
	_, err := os.Stat(p.path("logs"))
	return err == nil
}

// Running reports whether a supervisor answers.
func (p Project) Running() bool {
	conn, err := net.Dial("unix", p.path("supervisor.sock"))
	if err == nil {
		conn.Close()
	}
	return err == nil
}
