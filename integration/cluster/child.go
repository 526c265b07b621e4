package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// childArgument is the first argument of a program that is run again for us.
const childArgument = "heddle-cluster-child"

// job is what a child is told on its standard input.
type job struct {
	Options  Options
	Programs Programs
	Node     int // of a node; 0 is the fabric
	CA       []byte
}

func (j job) path(parts ...string) string {
	return filepath.Join(append([]string{j.Options.Dir}, parts...)...)
}

func (j job) pki(file string) string { return j.path("pki", file) }

// Main runs what a child is to do, and does not return then. A program that calls Start
// must call it before anything else.
func Main() {
	if len(os.Args) < 3 || os.Args[1] != childArgument {
		return
	}
	var j job
	err := json.NewDecoder(os.Stdin).Decode(&j)
	if err == nil {
		switch os.Args[2] {
		case "fabric":
			if !j.Options.Detach {
				go func() {
					io.Copy(io.Discard, os.Stdin) //nolint:errcheck // it ends with the one who started us
					os.Exit(0)
				}()
			}
			err = runFabric(j)
		case "node":
			err = runNode(j)
		default:
			err = fmt.Errorf("no child %q", os.Args[2])
		}
	}
	fmt.Fprintln(os.Stderr, "heddle-cluster", os.Args[2]+":", err)
	os.Exit(1)
}

// child makes the command of a child in namespaces of its own. It dies with its parent
// where that is asked for.
func child(what string, flags uintptr, dieWithParent bool) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", childArgument, what)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Setsid: true}
	if dieWithParent {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	return cmd
}

// ownMounts makes what we mount from now on ours alone, and /proc that of our pids.
func ownMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// bind puts a file or folder in the place of another.
func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, to, err)
	}
	return nil
}

func memory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

func writeFiles(files map[string]string) error {
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
