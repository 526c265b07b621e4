package capture

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// selfNetNS is the network namespace of the calling thread. It must be
// thread-self: /proc/self is the thread group's leader, which may well be
// in another namespace than the thread that asks.
const selfNetNS = "/proc/thread-self/ns/net"

// onOwnThread runs f on a locked OS thread that starts in the machine's
// namespace, and takes the thread back there. If that does not succeed the
// thread dies with the goroutine: a thread in a wrong namespace must never
// go back to the runtime's pool, where any goroutine could run on it.
// (Children started from a thread that dies get their parent death signal.)
func onOwnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(selfNetNS)
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer home.Close()
		ferr := f()
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- errors.Join(ferr, fmt.Errorf("return to own network namespace: %w", err))
			return
		}
		runtime.UnlockOSThread()
		result <- ferr
	}()
	return <-result
}

// inNetNS runs f on a thread inside the network namespace fd.
func inNetNS(fd int, f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// newNetNS makes a network namespace. It lives as long as the file, a
// process in it, or a mount of it does.
func newNetNS() (*os.File, error) {
	var file *os.File
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create network namespace: %w", err)
		}
		var err error
		file, err = os.Open(selfNetNS)
		return err
	})
	if err != nil && file != nil {
		file.Close()
		file = nil
	}
	return file, err
}

// netNSID tells one network namespace from another: its inode number.
func netNSID(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat network namespace: %w", err)
	}
	return st.Ino, nil
}

// writeSysctl sets /proc/sys/net/... of the calling thread's namespace.
func writeSysctl(name, value string) error {
	// Not os.WriteFile: no O_CREAT and no O_TRUNC on a sysctl.
	f, err := os.OpenFile("/proc/sys/"+name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", name, value, err)
	}
	return nil
}
