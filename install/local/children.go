package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// output is where a process writes: a file that is bounded, and the terminal.
func (s *supervisor) output(name string) io.Writer {
	file := newLogFile(s.Project.Log(name))
	s.closeAtEnd(file)
	if s.lines == nil {
		return file
	}
	lines := s.lines.Writer(name + " | ")
	s.closeAtEnd(lines) // writes what has no line end
	return io.MultiWriter(file, lines)
}

func (s *supervisor) closeAtEnd(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs = append(s.outputs, c)
}

// command is a spec that runs one of our own binary's commands.
func (s *supervisor) command(name string, args []string, env []string, files []*os.File) supervise.Spec {
	out := s.output(name)
	return supervise.Spec{
		Name: name, Restart: supervise.OnFailure, Grace: 20 * time.Second,
		Start: func(context.Context) (*exec.Cmd, error) {
			cmd := exec.Command("/proc/self/exe", args...)
			fd := 3 + len(files)
			cmd.Args[0] = "heddle" // what ps and top show
			cmd.Env = append(append(os.Environ(), env...), LifelineVariable+"="+strconv.Itoa(fd))
			cmd.Stdout, cmd.Stderr = out, out
			cmd.ExtraFiles = append(slices.Clone(files), s.lifeline, s.lock)
			return cmd, nil
		},
	}
}

func (s *supervisor) controlPlane() supervise.Spec {
	args := []string{
		"controlplane", "--state", s.Project.path("controlplane"), "--socket", s.Project.ControlPlane(),
		"--listen", agentAddress, "--metrics", metricsAddress, "--trust-domain", s.Config.TrustDomain,
	}
	if s.Config.Objects != "" {
		args = append(args, "--objects", s.relative(s.Config.Objects))
	}
	if s.Config.SVIDTTL != 0 {
		args = append(args, "--svid-ttl", s.Config.SVIDTTL.String())
	}
	if s.Config.Jaeger {
		args = append(args, "--otlp", otlpAddress)
	}
	if s.Config.OnDemand {
		args = append(args, "--on-demand")
	}
	spec := s.command("controlplane", args, nil, nil)
	spec.Ready = func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", s.Project.ControlPlane())
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return spec
}

// chown gives a folder to the user that a program runs as.
func chown(path, name string) error {
	if name == "" || !capture.MachineRoot() {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return fmt.Errorf("user %q: there is none of that name or number on this machine", name)
		}
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return os.Chown(path, uid, gid)
}
