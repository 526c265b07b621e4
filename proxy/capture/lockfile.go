package capture

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another open file holds the lock.
var ErrHeld = errors.New("held by another process")

// Locks are flock(2) locks on open files: the kernel drops them when their
// holder is gone, however it died, and a reused pid deceives nobody.

// lockFile opens (creating) path and waits for its exclusive lock.
func lockFile(path string) (*os.File, error) {
	return openLocked(path, unix.LOCK_EX)
}

// TryLockFile opens (creating, 0600) path and takes its exclusive lock, until the last
// copy of the open file is closed. The error is ErrHeld where another open file holds it.
func TryLockFile(path string) (*os.File, error) {
	return openLocked(path, unix.LOCK_EX|unix.LOCK_NB)
}

func openLocked(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrHeld
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
