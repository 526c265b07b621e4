package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ChildCommand is the first argument with which this package starts its own
// binary. A program that uses the package must, before anything else, ask
// IsChild and if so exit with what Main returns:
//
//	if capture.IsChild(os.Args) {
//		os.Exit(capture.Main(os.Args[2:]))
//	}
const ChildCommand = "nsexec"

// IsChild says whether args (with the program's name) are of a run for Main.
func IsChild(args []string) bool { return len(args) > 2 && args[1] == ChildCommand }

// Main does the work of such a run. It returns only if it did not become
// another program: with the exit code, having said why on stderr.
func Main(args []string) int {
	// Credentials, namespaces and execve(2) are the calling thread's affair:
	// the thread that executes takes the whole process over as it is.
	runtime.LockOSThread()
	var err error
	switch {
	case args[0] == "exec" && len(args) >= 3:
		err = becomeApp(args[1], args[2:])
	case args[0] == "rootless" && len(args) >= 2:
		err = becomeRootless(args[1], args[2:])
	case args[0] == "probe":
		err = probeRootless()
	case args[0] == "noop":
	default:
		err = errors.New("this command is for heddle's own use")
	}
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", ChildCommand, err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return 127
	}
	return 126
}

// becomeApp executes the app as its spec wants.
func becomeApp(text string, argv []string) error {
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return fmt.Errorf("read own arguments: %w", err)
	}
	if err := checkNetNS(spec.NetNSID, spec.NetNS); err != nil {
		return err
	}
	if len(spec.Files) > 0 {
		if err := mountFiles(spec.Files); err != nil {
			return err
		}
	}
	if err := dropPrivileges(spec.User, spec.KeepNetAdmin); err != nil {
		return err
	}
	// After the change of credentials, which clears the setting.
	if err := dieWithParent(spec.Parent, spec.DeathSignal); err != nil {
		return err
	}
	if spec.Dir != "" {
		if err := os.Chdir(spec.Dir); err != nil {
			return err
		}
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	if err := syscall.Exec(path, argv, os.Environ()); err != nil {
		return fmt.Errorf("execute %s: %w", path, err)
	}
	return nil
}

// checkNetNS enters the namespace unless the process was born in it.
func checkNetNS(id uint64, path string) error {
	if id == 0 {
		return nil
	}
	self, err := os.Open(selfNetNS)
	if err != nil {
		return err
	}
	defer self.Close()
	if got, err := netNSID(self); err != nil || got == id {
		return err
	}
	target, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("not started with Namespace.Start: %w", err)
	}
	defer target.Close()
	if got, err := netNSID(target); err != nil || got != id {
		return errors.Join(errors.New("not started with Namespace.Start, and its namespace is gone"), err)
	}
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("not started with Namespace.Start: enter network namespace: %w", err)
	}
	return nil
}

// dieWithParent asks for a signal when the parent is gone. (The kernel means
// the parent's thread that started us; Go's threads stay.)
func dieWithParent(parent, signal int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(signal), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent death signal: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the process that started this one is gone")
	}
	return nil
}

// becomeRootless finishes what EnterRootless began, from within.
func becomeRootless(text string, argv []string) error {
	var spec rootlessSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return fmt.Errorf("read own arguments: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look up lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if err := privateMounts(); err != nil {
		return err
	}
	if spec.Parent != 0 {
		if err := dieWithParent(spec.Parent, int(unix.SIGTERM)); err != nil {
			return err
		}
	}
	path := ownPath()
	if err := syscall.Exec(path, append([]string{os.Args[0]}, argv...), os.Environ()); err != nil {
		return fmt.Errorf("execute %s: %w", path, err)
	}
	return nil
}

// ownPath is a path of our own binary: its real one, for a good name in
// process lists, if that still leads to the same file.
func ownPath() string {
	const self = "/proc/self/exe"
	path, err := os.Executable()
	if err != nil {
		return self
	}
	a, aerr := os.Stat(path)
	b, berr := os.Stat(self)
	if aerr != nil || berr != nil || !os.SameFile(a, b) {
		return self
	}
	return path
}
