// Package statefile reads and writes private files that must survive a crash: keys,
// tokens, persisted SVIDs, a proxy's last good configuration.
//
// A file is replaced as a whole (temporary file, fsync, rename, fsync of the directory),
// so that a crash or a full disk leaves the old content. What others could read is
// refused on reading, because a key that was readable once must be taken for known.
package statefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MkdirAll makes dir and its parents with mode 0700. A directory that exists must not
// be accessible to group or others; the error says how to mend it.
func MkdirAll(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("check directory: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("directory %s has mode %04o, so others could reach the keys in it; run: chmod 700 %s", dir, perm, dir)
	}
	return nil
}

// Read returns the content of a file of at most limit bytes. It follows no symbolic
// link at path, and refuses a file that group or others can access or that belongs to
// neither this user nor root. A missing file gives an error that is [fs.ErrNotExist].
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open private file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("check private file: %w", err)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read private file: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("file %s is larger than %d bytes", path, limit)
	}
	return data, nil
}

func checkPrivate(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("file %s has mode %04o, so others could read the secret in it; run: chmod 600 %s (and rotate it, if others use this machine)", path, perm, path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("file %s belongs to uid %d, not to this user (uid %d); run: chown %d %s", path, st.Uid, os.Geteuid(), os.Geteuid(), path)
	}
	return nil
}

// Write replaces the file at path by data, with mode 0600. After an error the file has
// its old content or, if only the last fsync went wrong, its new one; never a mixture.
func Write(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // CreateTemp gives mode 0600
	if err != nil {
		return fmt.Errorf("write private file: %w", err)
	}
	renamed := false
	defer func() {
		if err != nil {
			err = fmt.Errorf("write private file %s: %w", path, err)
		}
		if !renamed {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	renamed = true
	return Sync(dir)
}

// Sync makes renames and removals in dir durable.
func Sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
