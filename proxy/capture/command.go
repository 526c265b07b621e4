package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exec describes a process to start in a namespace.
type Exec struct {
	Argv []string
	Env  []string // nil means this process's own
	Dir  string
	// User is a name or UID[:GID]; empty means to stay who we are. In
	// Rootless the app only appears to have this uid, by default the user's
	// own, and never 0: to the machine it is the user who started heddle.
	User string
	// ResolvConf and Hosts, if not nil, are what the process sees in
	// /etc/resolv.conf and /etc/hosts. Not in Explicit.
	ResolvConf, Hosts []byte
	// KeepNetAdmin leaves CAP_NET_ADMIN to the process, and nothing else. In
	// Rootless Envoy needs it for SO_MARK. An app must not have it: it could
	// go around its proxy.
	KeepNetAdmin bool
	// DeathSignal is what the process gets when the one that started it is
	// gone; 0 means SIGKILL.
	DeathSignal syscall.Signal

	Stdin          io.Reader
	Stdout, Stderr io.Writer
	ExtraFiles     []*os.File // descriptor 3 and on

	proxy bool // set by ProxyExec
}

// ProxyExec returns e as Envoy is to be run, so that the capture rules with
// their defaults know its sockets.
func (ns *Namespace) ProxyExec(e Exec) Exec {
	e.proxy = true
	switch ns.mode {
	case Transparent:
		e.User = strconv.Itoa(DefaultProxyUID)
	case Rootless:
		e.User, e.KeepNetAdmin = "", true
	}
	return e
}

// maxArg is the kernel's limit for one argument, MAX_ARG_STRLEN.
const maxArg = 128 << 10

// Command returns a command that runs e inside the namespace, to be started
// with Start. It is our own binary, which prepares itself and then executes
// e.Argv: its pid, signals and exit code are the app's. It exits with 127 if
// the program is not found and 126 if something else was refused, with a line on
// stderr, as shells do.
//
// The process has no capabilities and no_new_privs set: a setuid program
// will not get it any. When ctx is cancelled it gets SIGTERM, and SIGKILL ten
// seconds later; the caller may change Cancel and WaitDelay.
func (ns *Namespace) Command(ctx context.Context, e Exec) (*exec.Cmd, error) {
	if len(e.Argv) == 0 || e.Argv[0] == "" {
		return nil, errors.New("start in namespace: empty command")
	}
	spec, attr, err := ns.childSpec(e)
	if err != nil {
		return nil, fmt.Errorf("start %s in namespace: %w", e.Argv[0], err)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	if len(text) >= maxArg {
		return nil, fmt.Errorf("start %s in namespace: resolv.conf and hosts are too big (%d bytes encoded)", e.Argv[0], len(text))
	}
	// /proc/self/exe and not a path: it works when the binary was replaced or
	// lies in a directory that the user cannot enter.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{ChildCommand, "exec", string(text)}, e.Argv...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Env, cmd.ExtraFiles, cmd.SysProcAttr = e.Env, e.ExtraFiles, attr
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.Stdin, e.Stdout, e.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd, nil
}

// Start starts a command of this namespace. The child of a thread is born in
// the thread's namespace; in Rootless there is no other way for an app to get
// into it, as it is born in a user namespace that has no rights over it.
func (ns *Namespace) Start(cmd *exec.Cmd) error { return ns.in(cmd.Start) }

// childSpec is what the child must do before it executes the app.
type childSpec struct {
	NetNS   string // path, if it was not born in it
	NetNSID uint64 // 0: no namespace
	Parent  int    // pid
	Files   []privateFile
	Dir     string
	User    *identity // nil: unchanged

	KeepNetAdmin bool
	DeathSignal  int
}

func (ns *Namespace) childSpec(e Exec) (*childSpec, *syscall.SysProcAttr, error) {
	spec := &childSpec{Parent: os.Getpid(), Dir: e.Dir, KeepNetAdmin: e.KeepNetAdmin, DeathSignal: int(e.DeathSignal)}
	if spec.DeathSignal == 0 {
		spec.DeathSignal = int(unix.SIGKILL)
	}
	if ns.file != nil {
		spec.NetNS, spec.NetNSID = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.file.Fd()), ns.id
		spec.Files = privateFiles(e.ResolvConf, e.Hosts)
	} else if e.ResolvConf != nil || e.Hosts != nil {
		return nil, nil, errors.New("resolv.conf and hosts cannot be changed in mode explicit")
	}
	attr := &syscall.SysProcAttr{}
	if ns.mode == Rootless && !e.KeepNetAdmin {
		id, err := rootlessIdentity(e.User)
		if err != nil {
			return nil, nil, err
		}
		nestUser(attr, id)
		return spec, attr, nil
	}
	if e.User == "" {
		return spec, attr, nil
	}
	if ns.mode == Rootless {
		return nil, nil, errors.New("in rootless mode a process with CAP_NET_ADMIN cannot have another user")
	}
	id, err := lookUpUser(e.User)
	if err == nil && ns.mode == Transparent && id.UID == DefaultProxyUID && !e.proxy {
		err = fmt.Errorf("user %q: uid %d is Envoy's, its traffic is not captured", e.User, DefaultProxyUID)
	}
	spec.User = &id
	return spec, attr, err
}

// nestUser makes the child be born in a user namespace inside ours, where
// the only user is id. There it holds, until it executes the app, the
// capabilities to mount and to give up the rest; over our network namespaces
// it has none.
func nestUser(attr *syscall.SysProcAttr, id identity) {
	attr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: int(id.UID), HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: int(id.GID), HostID: os.Getegid(), Size: 1}}
	// A uid other than 0 loses its capabilities when it executes a program,
	// unless they are ambient.
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
}
