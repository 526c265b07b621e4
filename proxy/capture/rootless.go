package capture

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// RootlessExec describes a run of our own binary as EnterRootless makes it.
type RootlessExec struct {
	Argv []string // without the program's name
	Env  []string // nil means this process's own
	Dir  string
	// ExtraFiles are descriptor 3 and on in the new run: listening sockets
	// opened here, on the machine, as from within none can be.
	ExtraFiles     []*os.File
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Detach makes it go on, in a session of its own, when this process is
	// gone; otherwise it gets SIGTERM then.
	Detach bool
}

type rootlessSpec struct {
	Parent int // pid; 0 if detached
}

// EnterRootless returns a command that runs our own binary as root of a new
// user, network and mount namespace. The caller starts it, passes signals on
// and exits with its exit code. A process cannot enter a user namespace
// itself: that is only for single-threaded ones, and a Go program never is.
//
// Within, uid 0 is the calling user and no other uid exists; lo is up, and
// there is no other interface, so the machine's network is out of reach but
// for ExtraFiles and Unix sockets in the file system (abstract ones belong to
// a network namespace). Mounts made within are seen by nobody outside. /sys
// and /run stay the machine's: /sys/class/net shows the machine's interfaces,
// and named namespaces are kept in the state directory and not in /run/netns.
func EnterRootless(ctx context.Context, e RootlessExec) (*exec.Cmd, error) {
	if len(e.Argv) == 0 {
		return nil, errors.New("enter rootless mode: empty command")
	}
	spec := rootlessSpec{Parent: os.Getpid()}
	if e.Detach {
		spec.Parent = 0
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{ChildCommand, "rootless", string(text)}, e.Argv...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Env, cmd.Dir, cmd.ExtraFiles = e.Env, e.Dir, e.ExtraFiles
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.Stdin, e.Stdout, e.Stderr
	cmd.SysProcAttr = rootlessAttr()
	cmd.SysProcAttr.Setsid = e.Detach
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd, nil
}

func rootlessAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
}
