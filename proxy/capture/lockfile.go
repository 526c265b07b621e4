package capture

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// errHeld says that another open file holds the lock.
var errHeld = errors.New("held by another process")

// Locks are flock(2) locks on open files: the kernel drops them when their
// holder is gone, however it died, and a reused pid deceives nobody.

// lockFile opens (creating) path and waits for its exclusive lock.
func lockFile(path string) (*os.File, error) {
	return openLocked(path, unix.LOCK_EX)
}

// tryLockFile is lockFile that returns errHeld where lockFile would wait.
func tryLockFile(path string) (*os.File, error) {
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
		return nil, errHeld
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
